"""Fine-tune the backbone on the prepared rows and keep the best epoch by validation macro-F1."""

from pathlib import Path

import click

from finsight.command import PATH, edge


@click.command(help=__doc__)
@click.option("--prepared", type=PATH, required=True, help="Folder of the prepared splits.")
@click.option("--checkpoint", type=PATH, required=True, help="Folder to write: weights, configuration, tokenizer.")
@click.option("--report", type=PATH, required=True, help="JSON file to write: the best epoch, speed, digests.")
@click.option("--curves", type=PATH, required=True, help="CSV file to write: loss and metrics by epoch.")
@edge
def main(prepared: Path, checkpoint: Path, report: Path, curves: Path) -> None:
    from finsight import bootstrap
    from finsight.adapters.progress import ProgressBar
    from finsight.pipeline.train import train

    params = bootstrap.load_params()
    backbone = bootstrap.backbone(params)
    with bootstrap.tracked(params) as run, ProgressBar() as bar:
        found = train(prepared, params.labels, params.train, backbone, checkpoint, report, curves, [bar, run])
        run.made(found["checkpoint_sha256"])
    click.echo(f"best epoch {found['best_epoch']}, {found['rows_per_second']} rows/s on {found['device']} in {found['precision']}")


if __name__ == "__main__":
    main()
