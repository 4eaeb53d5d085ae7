"""Normalise, split and tokenise the corpus; drop duplicates within train and count those that cross splits."""

from pathlib import Path

import click

from finsight.command import PATH, edge


@click.command(help=__doc__)
@click.option("--corpus", type=PATH, required=True, help="Parquet file of the raw rows.")
@click.option("--prepared", type=PATH, required=True, help="Folder to write: a Parquet file a split, and the tokenizer.")
@click.option("--report", type=PATH, required=True, help="JSON file to write: counts.")
@edge
def main(corpus: Path, prepared: Path, report: Path) -> None:
    from finsight import bootstrap
    from finsight.pipeline.prepare import prepare

    params = bootstrap.load_params()
    found = prepare(corpus, params.labels, params.prepare, bootstrap.backbone(params), prepared, report)
    click.echo(", ".join(f"{split['rows']} rows for {name}" for name, split in found["splits"].items()))


if __name__ == "__main__":
    main()
