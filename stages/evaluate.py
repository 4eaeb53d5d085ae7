"""Calibrate the checkpoint on validation and score the test rows; write predictions, metrics and the data of plots."""

from pathlib import Path

import click

from finsight.command import PATH, edge


@click.command(help=__doc__)
@click.option("--checkpoint", type=PATH, required=True, help="Folder of the fine-tuned model.")
@click.option("--train", type=PATH, required=True, help="Parquet file of the training rows, for the baselines.")
@click.option("--validation", type=PATH, required=True, help="Parquet file of the validation rows.")
@click.option("--test", type=PATH, required=True, help="Parquet file of the test rows.")
@click.option("--suite", type=PATH, required=True, help="Folder of the behavioural tests.")
@click.option("--prepare", "prepare_report", type=PATH, required=True, help="JSON file of prepare, with the protocol.")
@click.option("--predictions", type=PATH, required=True, help="Parquet file to write: a row a prediction.")
@click.option("--report", type=PATH, required=True, help="JSON file to write: the metrics.")
@click.option("--slices", type=PATH, required=True, help="JSON file to write: metrics of parts of the rows.")
@click.option("--mistakes", type=PATH, required=True, help="CSV file to write: wrong rows with the training rows most like them.")
@click.option("--failures", type=PATH, required=True, help="CSV file to write: cases that failed a behavioural test.")
@click.option("--plots", type=PATH, required=True, help="Folder to write into: confusion, reliability, coverage.")
@edge
def main(checkpoint: Path, train: Path, validation: Path, test: Path, suite: Path, prepare_report: Path, **written: Path) -> None:
    from finsight import bootstrap
    from finsight.pipeline.evaluate import Written, evaluate

    params = bootstrap.load_params()
    classifier = bootstrap.checkpoint_classifier(checkpoint, params)
    rows = (train, validation, test)
    found = evaluate(classifier, *rows, suite, params.polarity, params.evaluate, prepare_report, Written(**written))
    click.echo(f"accuracy {found['accuracy']:.3f}, macro-F1 {found['macro_f1']:.3f} on {found['n']} test rows")


if __name__ == "__main__":
    main()
