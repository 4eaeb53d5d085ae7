"""Bring the run with its evidence into MLflow and the bundle into its model registry. Run twice, nothing changes."""

import os
from pathlib import Path

import click

from finsight.command import PATH, edge


@click.command(help=__doc__)
@click.option("--bundle", type=PATH, required=True, help="Folder of the exported bundle.")
@click.option("--reports", type=PATH, required=True, help="Folder of the other stages' reports.")
@click.option("--report", type=PATH, required=True, help="JSON file to write: run, version, aliases.")
@edge
def main(bundle: Path, reports: Path, report: Path) -> None:
    from finsight import bootstrap
    from finsight.pipeline.register import evidence, register

    params = bootstrap.load_params()
    registry, tracker = bootstrap.registry(params), bootstrap.tracker(params)
    settings, lineage = bootstrap.flatten(params), bootstrap.lineage()
    # DVC sets this variable inside `dvc exp run`.
    experiment = os.environ.get("DVC_EXP_NAME")
    judge = bootstrap.against(params, reports)
    found = register(tracker, registry, params.register_, evidence(bundle, reports), settings, lineage, experiment, judge, report)
    click.echo(
        f"run {found['run']}, " + (f"version {found['version']} {found['aliases']}" if found["version"] else "no version: an experiment")
    )


if __name__ == "__main__":
    main()
