"""Check the raw corpus against the expectation suites; a critical failure stops the pipeline."""

from pathlib import Path

import click

from finsight.command import PATH, edge


@click.command(help=__doc__)
@click.option("--corpus", type=PATH, required=True, help="Parquet file of the raw rows.")
@click.option("--validated", type=PATH, required=True, help="JSON file: profiles of the version to compare with, if it exists.")
@click.option("--report", type=PATH, required=True, help="JSON file to write: what was found.")
@click.option("--profile", type=PATH, required=True, help="JSON file to write: profile of each corpus, for `finsight corpus approve`.")
@click.option("--suspects", type=PATH, required=True, help="CSV file to write: rows whose label is doubtful.")
@click.option("--corrections", type=PATH, required=True, help="CSV file of labels that a person has looked at, if it exists.")
@click.option("--docs", type=PATH, required=True, help="Folder to write: Data Docs, as HTML.")
@edge
def main(corpus: Path, validated: Path, report: Path, profile: Path, suspects: Path, corrections: Path, docs: Path) -> None:
    from finsight import bootstrap
    from finsight.pipeline.validate import validate

    params = bootstrap.load_params()
    found = validate(
        corpus,
        validated,
        params.labels,
        params.validate_,
        report=report,
        docs=docs,
        profile=profile,
        suspects=suspects,
        corrections=corrections,
    )
    click.echo(f"{len(found['expectations'])} expectations, {found['warning']} with warnings; read {docs}/index.html")
    click.echo(
        f"{found['suspects']} of {found['examined']} labels are contradicted by a simple model, the most doubtful first in {suspects}"
    )


if __name__ == "__main__":
    main()
