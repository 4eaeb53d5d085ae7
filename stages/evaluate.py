"""Score the test rows with the checkpoint; write predictions, metrics and the data of two plots."""

from pathlib import Path

import click

from finsight.command import PATH, edge


@click.command(help=__doc__)
@click.option("--checkpoint", type=PATH, required=True, help="Folder of the fine-tuned model.")
@click.option("--test", type=PATH, required=True, help="Parquet file of the test rows.")
@click.option("--prepare", "prepare_report", type=PATH, required=True, help="JSON file of prepare, with the protocol.")
@click.option("--predictions", type=PATH, required=True, help="Parquet file to write: a row a prediction.")
@click.option("--report", type=PATH, required=True, help="JSON file to write: the metrics.")
@click.option("--confusion", type=PATH, required=True, help="CSV file to write: actual and predicted labels.")
@click.option("--calibration", type=PATH, required=True, help="CSV file to write: confidence against accuracy.")
@edge
def main(checkpoint: Path, test: Path, prepare_report: Path, predictions: Path, report: Path, confusion: Path, calibration: Path) -> None:
    from finsight import bootstrap
    from finsight.pipeline.evaluate import evaluate

    params = bootstrap.load_params()
    classifier = bootstrap.checkpoint_classifier(checkpoint, params)
    found = evaluate(classifier, test, params.polarity, params.evaluate, prepare_report, predictions, report, confusion, calibration)
    click.echo(f"accuracy {found['accuracy']:.3f}, macro-F1 {found['macro_f1']:.3f} on {found['n']} test rows")


if __name__ == "__main__":
    main()
