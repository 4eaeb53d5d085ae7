"""Bring the run with its evidence into MLflow and the bundle into its model registry, signed. Run twice, nothing changes."""

from pathlib import Path

import click

from finsight.command import PATH, edge


@click.command(help=__doc__)
@click.option("--bundle", type=PATH, required=True, help="Folder of the exported bundle; its provenance is written beside it.")
@click.option("--reports", type=PATH, required=True, help="Folder of the other stages' reports.")
@click.option("--report", type=PATH, required=True, help="JSON file to write: run, version, aliases.")
@edge
def main(bundle: Path, reports: Path, report: Path) -> None:
    from finsight import bootstrap
    from finsight.pipeline.evidence import Evidence
    from finsight.pipeline.register import register

    params = bootstrap.load_params()
    found = register(bootstrap.desk(params), params.register_, Evidence(bundle, reports, Path()), bootstrap.facts(params), report)
    for problem in (found.get("waits"), found.get("left")):
        if problem:
            click.secho(f"warning: {problem}", fg="yellow", err=True)
    if "waits" in found:
        click.echo("the registration waits in .outbox; `finsight registry flush` and the next `dvc repro register` send it")
    elif found["version"]:
        click.echo(f"run {found['run']}, version {found['version']} {found['aliases']}")
    else:
        click.echo(f"run {found['run']}, no version: an experiment")


if __name__ == "__main__":
    main()
