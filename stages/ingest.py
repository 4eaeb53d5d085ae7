"""Read the corpora that ingest.corpora names into one table; set unfit rows aside with their reasons."""

from pathlib import Path

import click

from finsight.command import PATH, edge


@click.command(help=__doc__)
@click.option("--corrections", type=PATH, default=Path("data/corrections.csv"), help="CSV file: corrected labels by hash of the text.")
@click.option("--corpus", type=PATH, required=True, help="Parquet file to write: the usable rows.")
@click.option("--quarantine", type=PATH, required=True, help="Parquet file to write: the rejected rows.")
@click.option("--unlabelled", type=PATH, required=True, help="Parquet file to write: texts of the corpora of ingest.unlabelled.")
@click.option("--report", type=PATH, required=True, help="JSON file to write: counts.")
@edge
def main(corrections: Path, corpus: Path, quarantine: Path, unlabelled: Path, report: Path) -> None:
    from finsight import bootstrap
    from finsight.pipeline.ingest import ingest

    params = bootstrap.load_params()
    readers, texts = bootstrap.readers(params, params.ingest.corpora), bootstrap.readers(params, params.ingest.unlabelled)
    found = ingest(readers, params.labels, params.ingest, params.corpora, corrections, corpus, quarantine, report, texts, unlabelled)
    click.echo(f"{found['rows']} rows of {', '.join(found['corpora'])}, {found['quarantined']} quarantined")
    for name, rows in found["unlabelled"].items():
        click.echo(f"{rows} texts of {name}, unlabelled")


if __name__ == "__main__":
    main()
