"""Commands about provenance: where a version came from, whether it still is what it was, whether it can be made again."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import click

from finsight.command import PATH, edge


@click.command()
@click.argument("what", default="models/bundle", metavar="[PATH-OR-VERSION]")
@edge
def verify(what: str) -> None:
    """Recompute every digest of a bundle and its provenance, check the signatures, and say what differs.

    PATH-OR-VERSION is the folder of a bundle, or a version of the registry, whose reports and inputs are checked too.
    """
    from finsight import bootstrap
    from finsight.pipeline.provenance import STATEMENT, beside

    path = Path(what)
    if path.is_dir() or not bootstrap.names_version(what):
        bundle, folder = path, beside(path)
        signed = (folder / STATEMENT).exists()
        _say_verified(bundle, bootstrap.verified(bundle) if signed else None)
        return
    with tempfile.TemporaryDirectory() as made:
        content, files = bootstrap.verified_version(what, Path(made))
        _say_verified(Path(made) / "bundle", content)
        click.echo(f"{files} reports and inputs are what the statement says")


def _say_verified(bundle: Path, content: dict[str, Any] | None) -> None:
    from finsight import bootstrap
    from finsight.bundle import bundle_digest, read_bundle
    from finsight.pipeline.provenance import development_signed

    click.echo(f"{len(read_bundle(bundle).files)} files match bundle.json; bundle digest {bundle_digest(bundle)}")
    if content is None:
        click.secho("no provenance beside it, so nothing says who made it: `dvc repro register` or `models download`", fg="yellow")
    elif development_signed(content):
        whose = (
            "this clone's" if bootstrap.signer(signs=False).trusts(content["predicate"]["finsight_signer"]["key"]) else "another clone's"
        )
        click.secho(f"statement and bundle are signed with {whose} development key, which says nothing about who made them", fg="yellow")
    else:
        click.secho("statement and bundle are signed with a trusted key", fg="green")


@click.command()
@click.argument("what", default="models/bundle", metavar="[PATH-OR-VERSION]")
@click.option("--json", "as_json", is_flag=True, help="The statement itself.")
@edge
def lineage(what: str, as_json: bool) -> None:
    """Where a bundle came from: the chain from the served files back to code, data and backbone."""
    from finsight import bootstrap
    from finsight.pipeline.lineage import chain

    content = bootstrap.statement(what)
    if as_json:
        click.echo(json.dumps(content, indent=2, ensure_ascii=False))
        return
    for depth, (name, told) in enumerate(chain(content)):
        click.echo(("" if depth == 0 else "  " * (depth - 1) + "└ ") + click.style(name, bold=True) + f"  {told}")


@click.command()
@click.argument("version")
@click.option("--into", type=PATH, help="Folder to work in and keep; a temporary one by default.")
@edge
def reproduce(version: str, into: Path | None) -> None:
    """Make VERSION again, from its revision, parameters and data, in a clone of its own, and compare digests and metrics."""
    from finsight import bootstrap
    from finsight.errors import GateError

    found = bootstrap.reproduce(version, into, click.echo)
    for name, was, now in found.rows:
        click.secho(f"{name:<28}{was:<26}{now:<26}{'equal' if was == now else 'differs'}", fg="green" if was == now else "yellow")
    for note in found.notes:
        click.secho(note, fg="yellow")
    if found.problem:
        raise GateError(found.problem)
    click.secho(found.verdict, fg="green")
