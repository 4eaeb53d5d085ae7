"""Fine-tune the backbone on the prepared rows and keep the best epoch by validation macro-F1."""

import sys
from pathlib import Path

import click

from finsight.command import PATH, edge, stop_signal


@click.command(help=__doc__)
@click.option("--prepared", type=PATH, required=True, help="Folder of the prepared splits.")
@click.option("--checkpoint", type=PATH, required=True, help="Folder to write: weights, configuration, tokenizer.")
@click.option("--report", type=PATH, required=True, help="JSON file to write: the best epoch, speed, digests.")
@click.option("--curves", type=PATH, required=True, help="CSV file to write: loss and metrics by epoch.")
@click.option("--environment", type=PATH, required=True, help="JSON file to write: packages, processor, GPU and driver.")
@click.option("--steps", type=PATH, required=True, help="JSON lines to write: the loss by step.")
@edge
def main(prepared: Path, checkpoint: Path, report: Path, curves: Path, environment: Path, steps: Path) -> None:
    from finsight import bootstrap
    from finsight.adapters.progress import JsonLines, ProgressBar
    from finsight.adapters.torchrun import relaunched
    from finsight.files import write_json
    from finsight.modeling.host import describe
    from finsight.pipeline.train import train

    params = bootstrap.load_params()
    recipe = bootstrap.recipe(params)
    if relaunched(recipe.launch, sys.argv, lambda said: click.secho(said, fg="yellow", err=True)):
        return
    backbone = bootstrap.backbone(params)
    with stop_signal() as stop, bootstrap.tracked(params) as run, JsonLines(steps) as log, ProgressBar() as bar:
        given = (prepared, params.labels, recipe, backbone, checkpoint, report, curves)
        scratch, teacher, shards = bootstrap.scratch(), bootstrap.teacher(params), bootstrap.shards(params)
        found = train(*given, [bar, log, run], scratch=scratch, teacher=teacher, shards=shards, stop=stop)
        if "checkpoint_sha256" in found:  # of several processes one has written it
            write_json(environment, describe())
            run.made(found["checkpoint_sha256"])
    click.echo(f"best epoch {found['best_epoch']}, {found['rows_per_second']} rows/s on {found['device']} in {found['precision']}")


if __name__ == "__main__":
    main()
