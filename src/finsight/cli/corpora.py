"""Commands that bring in what a training starts from."""

from __future__ import annotations

from pathlib import Path

import click

from finsight.command import PATH, edge
from finsight.errors import ParamsError


@click.command()
@click.argument("name", required=False)
@edge
def backbone(name: str | None) -> None:
    """Fetch and verify a backbone: NAME, or the one that train.backbone names."""
    from finsight import bootstrap

    found = bootstrap.backbone(bootstrap.load_params(), name)
    click.echo(f"{found.name}: {found.folder}, weights {found.digest[:12]}…, licence {found.license}")


@click.command()
@click.argument("target")
@click.option("--prepared", type=PATH, default=Path("data/prepared"), show_default=True, help="Folder of the prepared splits.")
@click.option("--rows", type=click.IntRange(1), default=1_000_000, show_default=True, help="The most of a shard.")
@edge
def shards(target: str, prepared: Path, rows: int) -> None:
    """Write the prepared training rows as shards to TARGET, a folder or s3://bucket/prefix, for train.stream.shards."""
    from finsight import bootstrap
    from finsight.adapters.progress import row_bars
    from finsight.pipeline.token_shards import write_shards

    with row_bars() as progress:
        total, files = write_shards(prepared, bootstrap.load_params().labels, bootstrap.file_store(target), rows, progress)
    click.echo(f"{total} rows in {files} shards at {target}; with train.stream.shards: {target} they are learned from")


@click.group()
def corpus() -> None:
    """Bring labelled text in."""


@corpus.command("add")
@click.argument("name")
@click.argument("source")
@click.option("--sha256", metavar="HEX", help="Digest that it must have; of several files, of the lines that sha256sum prints for them.")
@click.option("--revision", metavar="COMMIT", help="Commit of a data set of the hub; it needs one.")
@edge
def corpus_add(name: str, source: str, sha256: str | None, revision: str | None) -> None:
    """Bring a corpus to data/external/NAME, put it under DVC, and say how to use it.

    SOURCE is a file, a folder, a pattern, https://…, s3://bucket/key, or a data set of the Hugging Face hub (hf://owner/name).
    """
    from finsight import bootstrap
    from finsight.adapters.external import add_corpus
    from finsight.adapters.proposal import propose
    from finsight.params.file import load_params
    from finsight.settings import load_settings

    try:
        labels = load_params().labels
    except ParamsError as error:
        labels = ["negative", "neutral", "positive"]
        click.secho(f"warning: {error}", fg="yellow", err=True)
    folder, origin = add_corpus(name, source, load_settings(), sha256, revision)
    click.echo(f"{folder} is under DVC, and {folder}.dvc is staged in git: commit it, or no job and no sweep will see it.")
    click.echo(f"SHA-256 {origin.sha256}, recorded there" + ("." if sha256 else "; with --sha256 only the very same would be taken."))
    click.echo()
    click.echo(propose(name, folder, labels, origin.source, bootstrap.reader))


@corpus.command("show")
@click.argument("name")
@edge
def corpus_show(name: str) -> None:
    """What a corpus of params.yaml holds, and where it came from."""
    from finsight import bootstrap
    from finsight.adapters.external import origin_of
    from finsight.adapters.proposal import describe
    from finsight.params.file import load_params

    params = load_params()
    if name not in params.corpora:
        known = ", ".join(sorted(params.corpora))
        raise ParamsError(f"{name!r} is not under corpora in params.yaml (there: {known}); bring it in with `finsight corpus add`")
    found = params.corpora[name]
    lines, _ = describe(name, found, bootstrap.reader(name, found))
    click.echo("\n".join([*lines, f"licence     {found.license}"]))
    for key, value in origin_of(found.path).items():
        click.echo(f"{key:<11} {value}")


@corpus.command("approve")
@edge
def corpus_approve() -> None:
    """Make the corpora that last passed `validate` the ones that later versions are compared with."""
    from finsight.pipeline.validated import approve

    target = Path("data/validated.json")
    names = approve(Path("reports/profile.json"), target)
    click.echo(f"{target}: {', '.join(names)} {'is' if len(names) == 1 else 'are'} what later versions are compared with; commit it")
