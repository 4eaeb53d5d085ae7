"""Commands about the registry: which versions there are, which one serves, what waits to be sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import click

from finsight.command import PATH, edge
from finsight.errors import DataError

WHY = click.option("--why", default="", help="The reason, for the audit log.")
ALIAS = click.option("--alias", default="champion", show_default=True, help="Alias to move.")
VERSION = click.argument("version")


@click.group()
def models() -> None:
    """Versions of the model in the registry. VERSION is a number or an alias."""


@models.command("list")
@click.option("--all", "everything", is_flag=True, help="Archived versions too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@edge
def list_(everything: bool, as_json: bool) -> None:
    """Every version, oldest first."""
    from finsight import bootstrap
    from finsight.pipeline.models import archived, facts

    params = bootstrap.load_params()
    found = [v for v in bootstrap.registry(params).versions() if everything or not archived(v)]
    if as_json:
        for version in found:
            click.echo(json.dumps({"version": version.number, "aliases": sorted(version.aliases), **facts(version)}, ensure_ascii=False))
        return
    if not found:
        click.echo(f"{params.register_.model} has no version yet; `dvc repro` makes one")
        return
    click.secho(f"{'':>4}  {'alias':<22}{'created':<18}{'accuracy':>9}{'macro-F1':>10}  {'signature':<13}{'commit':<14}", bold=True)
    for version in found:
        row, held = facts(version), ", ".join(sorted(version.aliases)) or ("archived" if archived(version) else "")
        click.secho(
            f"{version.number:>4}  {held:<22}{row['created'][:16].replace('T', ' '):<18}{row['accuracy']:>9}{row['macro_f1']:>10}  "
            f"{row['signature']:<13}{row['commit']}",
            fg="green" if "champion" in version.aliases else None,
        )


@models.command()
@VERSION
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@edge
def show(version: str, as_json: bool) -> None:
    """All that the registry says of VERSION, and what was done to it."""
    from finsight import bootstrap
    from finsight.pipeline.models import about, find

    registry = bootstrap.registry(bootstrap.load_params())
    found = about(find(registry.versions(), version), registry.audit())
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    width = max(len(key) for key in found if key != "log")
    for key, value in found.items():
        if key != "log":
            click.echo(f"{key:<{width}}  {value}")
    for line in found["log"]:
        click.echo(_told(line))


@models.command()
@click.argument("base")
@click.argument("new")
@edge
def diff(base: str, new: str) -> None:
    """Whether version NEW is better than version BASE; `finsight compare` does the same for revisions and experiments."""
    from finsight import bootstrap
    from finsight.pipeline.compare import compare
    from finsight.pipeline.comparison import as_text

    params = bootstrap.load_params()
    old, young = (bootstrap.version_side(params, bootstrap.model_version(params, name)) for name in (base, new))
    click.echo(as_text(compare(old, young, params.polarity, params.evaluate)), nl=False)


@models.command()
@VERSION
@ALIAS
@WHY
@click.option("--force", is_flag=True, help="Even where a gate fails; the audit log says so. Needs --why.")
@edge
def promote(version: str, alias: str, why: str, force: bool) -> None:
    """Let the alias point to VERSION, if it passes the gates of params.yaml against the version that holds it now."""
    from finsight import bootstrap
    from finsight.pipeline import models as changes

    if force and not why:
        raise DataError("--force needs --why: the audit log keeps the reason")
    params = bootstrap.load_params()
    commercial, judge = params.register_.commercial_aliases, bootstrap.judge(params)
    registry, who = bootstrap.registry(params), bootstrap.author()
    click.secho(changes.promote(registry, version, alias, judge, commercial, who, why, force), fg="green")


@models.command()
@ALIAS
@WHY
@edge
def rollback(alias: str, why: str) -> None:
    """Let the alias point to the version that it pointed to before."""
    from finsight import bootstrap
    from finsight.pipeline import models as changes

    params = bootstrap.load_params()
    commercial = params.register_.commercial_aliases
    click.secho(changes.rollback(bootstrap.registry(params), alias, commercial, bootstrap.author(), why), fg="green")


@models.command()
@VERSION
@WHY
@click.option("--undo", is_flag=True, help="Bring it back.")
@edge
def archive(version: str, why: str, undo: bool) -> None:
    """Put VERSION away: it is neither listed nor promoted any more."""
    from finsight import bootstrap
    from finsight.pipeline import models as changes

    click.echo(changes.archive(bootstrap.registry(bootstrap.load_params()), version, bootstrap.author(), why, undo))


@models.command()
@VERSION
@WHY
@click.option("--yes", is_flag=True, help="Don't ask.")
@edge
def delete(version: str, why: str, yes: bool) -> None:
    """Remove VERSION from the registry for good; no alias may hold it."""
    from finsight import bootstrap
    from finsight.pipeline import models as changes

    registry = bootstrap.registry(bootstrap.load_params())
    found = changes.find(registry.versions(), version)
    if not yes:
        click.confirm(f"delete version {found.number} for good?", abort=True)
    click.echo(changes.delete(registry, str(found.number), bootstrap.author(), why))


@models.command()
@VERSION
@click.argument("into", type=PATH)
@edge
def download(version: str, into: Path) -> None:
    """Fetch VERSION as INTO/bundle, checked, with its provenance beside it."""
    from finsight import bootstrap
    from finsight.files import atomic_folder
    from finsight.pipeline.models import download

    params = bootstrap.load_params()
    if into.exists() and any(into.iterdir()):
        raise DataError(f"{into}: holds something already; name a folder that is new or empty")
    found = bootstrap.model_version(params, version)
    with atomic_folder(into) as made:
        download(bootstrap.tracker(params), found, made)
    click.echo(f"{into / 'bundle'}: version {found.number}, bundle digest {found.bundle_digest}")


@models.command("log")
@edge
def log() -> None:
    """Who changed what in the registry, when and why, oldest first."""
    from finsight import bootstrap

    for line in bootstrap.registry(bootstrap.load_params()).audit():
        click.echo(_told(line))


def _told(line: Mapping[str, str]) -> str:
    """An audit line for the terminal."""
    when, why = line["when"][:19].replace("T", " "), f"  {line['why']}" if line.get("why") else ""
    moved = f" {line['alias']} {line['from'] or 'nobody'} → {line['to']}" if line.get("alias") else f" version {line['to']}"
    return f"{when}  {line['who']}  {line['action']}{moved}{why}"


@click.group()
def registry() -> None:
    """What could not be sent to the registry."""


@registry.command()
@edge
def flush() -> None:
    """Send the registrations that wait in the outbox."""
    from finsight import bootstrap
    from finsight.pipeline.register import flush

    params = bootstrap.load_params()
    sent = flush(bootstrap.desk(params), params.register_)
    for found in sent:
        made = f"version {found['version']} {found['aliases']}" if found["version"] else "no version: an experiment"
        click.echo(f"run {found['run']}, {made}")
    if not sent:
        click.echo("nothing waits")
