"""Normalise, split and tokenise the corpus; group near-duplicates, drop repeats within train, mark and count what leaks."""

from pathlib import Path

import click

from finsight.command import PATH, edge


@click.command(help=__doc__)
@click.option("--corpus", type=PATH, required=True, help="Parquet file of the raw rows.")
@click.option("--unlabelled", type=PATH, required=True, help="Parquet file of texts without labels.")
@click.option("--prepared", type=PATH, required=True, help="Folder to write: a Parquet file a split, and the tokenizer.")
@click.option("--report", type=PATH, required=True, help="JSON file to write: counts.")
@click.option("--lengths", type=PATH, required=True, help="CSV file to write: how many texts have how many tokens.")
@edge
def main(corpus: Path, unlabelled: Path, prepared: Path, report: Path, lengths: Path) -> None:
    from finsight import bootstrap
    from finsight.adapters.progress import row_bars
    from finsight.domain.protocol import in_words
    from finsight.pipeline.prepare import prepare

    params = bootstrap.load_params()
    known_as = {name: params.corpora[name].known_as for name in params.ingest.corpora}
    with row_bars() as progress, bootstrap.row_workers(params) as run:
        found = prepare(
            corpus,
            unlabelled,
            params.labels,
            known_as,
            params.prepare,
            bootstrap.student(params),
            bootstrap.token_cache(),
            prepared,
            report,
            lengths,
            progress,
            run,
        )
    click.echo(", ".join(f"{split['rows']} rows for {name}" for name, split in found["splits"].items()))
    click.echo(in_words(found["protocol"]))


if __name__ == "__main__":
    main()
