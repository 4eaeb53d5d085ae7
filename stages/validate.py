"""Check the raw corpus against the expectation suite; a critical failure stops the pipeline."""

from pathlib import Path

import click

from finsight.command import PATH, edge


@click.command(help=__doc__)
@click.option("--corpus", type=PATH, required=True, help="Parquet file of the raw rows.")
@click.option("--report", type=PATH, required=True, help="JSON file to write: what was found.")
@click.option("--docs", type=PATH, required=True, help="Folder to write: Data Docs, as HTML.")
@edge
def main(corpus: Path, report: Path, docs: Path) -> None:
    from finsight import bootstrap
    from finsight.pipeline.validate import validate

    params = bootstrap.load_params()
    found = validate(corpus, params.labels, params.validate_, report, docs)
    click.echo(f"{len(found['expectations'])} expectations, {found['warning']} with warnings; read {docs}/index.html")


if __name__ == "__main__":
    main()
