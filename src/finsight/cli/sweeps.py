"""The command that runs many experiments."""

from __future__ import annotations

import click

from finsight.command import edge, stop_signal


@click.command()
@click.argument("targets", nargs=-1, metavar="[STAGE]...")
@click.option(
    "-S",
    "--set-param",
    "overrides",
    multiple=True,
    required=True,
    metavar="KEY=VALUE[,VALUE]...",
    help="Values of a parameter, or KEY=range(…), as `dvc exp run --queue -S` takes them; every combination is an experiment.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Experiments at once, each with its share of the cores, and a GPU to itself where there are any.",
)
@click.option("-n", "--name", "prefix", default="sweep", show_default=True, help="What the experiments' names begin with.")
@edge
def sweep(targets: tuple[str, ...], overrides: tuple[str, ...], workers: int, prefix: str) -> None:
    """Run the pipeline, or up to STAGE, as an experiment of DVC's for each combination of values; stop and go on as you like."""
    from finsight.bootstrap.sweep import sweep

    with stop_signal() as stop:
        best = sweep(overrides, targets, workers, prefix, stop)
    if best:
        click.secho(f"best on validation: {best}", bold=True)
        click.echo(f"dvc exp apply {best}")
