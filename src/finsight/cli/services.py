"""Commands that run what stands beside the pipeline: storage, MLflow."""

from __future__ import annotations

import os
from pathlib import Path

import click

from finsight.command import PATH, edge


@click.command()
@click.option("--address", default="127.0.0.1:9000", show_default=True)
@click.option("--root", type=PATH, default=Path(".storage/s3"), show_default=True, help="Folder whose subfolders are the buckets.")
@edge
def storage(address: str, root: Path) -> None:
    """Run a real S3 server on loopback, for development: the `minio` remote of .dvc/config."""
    from finsight.adapters.storage import serve_s3

    serve_s3(root, address)


REMOTE = click.option("-r", "--remote", default="minio", show_default=True)


@click.command()
@REMOTE
@click.option(
    "--runs",
    type=click.Choice(["current", "all", "none"]),
    default="current",
    show_default=True,
    help="Runs of DVC's run cache that go with it: those that dvc.lock describes, all that are here, none.",
)
@edge
def push(remote: str, runs: str) -> None:
    """Send data and models to a DVC remote, and the runs that led to them."""
    from finsight.adapters.transfers import push

    click.echo(f"{push(remote, runs)} objects sent to {remote}")


@click.command()
@REMOTE
@click.option("--runs/--no-runs", default=True, show_default=True, help="Also what others have run with the present parameters.")
@edge
def pull(remote: str, runs: bool) -> None:
    """Fetch data and models from a DVC remote, and put them in place."""
    from finsight.adapters.transfers import pull

    click.echo(f"{pull(remote, runs)} objects fetched from {remote}")


@click.command()
@click.option("-r", "--remote", help="Clear this remote too; the cache of this clone alone otherwise.")
@click.option("--yes", is_flag=True, help="Remove it; it is only shown otherwise.")
@edge
def gc(remote: str | None, yes: bool) -> None:
    """Show what DVC keeps that no model version, branch, tag, experiment, nor the workspace needs; remove it with --yes.

    Branches and experiments that only another clone has don't count: `git fetch --all` and `dvc exp pull` first. Nor do versions in
    another registry.
    """
    from finsight import bootstrap

    versions, found = bootstrap.unneeded(remote, remove=yes)
    for one in found:
        said = "removed" if yes else "needed by nobody"
        click.echo(
            f"{one.place}: {len(one.objects)} objects ({one.size / 1e6:.1f} MB) and {len(one.runs)} runs {said}; {one.kept} objects stay"
        )
        if not yes:
            for path in one.objects:
                click.echo(f"  {path}", err=True)
    if remote and not os.environ.get("MLFLOW_TRACKING_URI"):
        click.secho(
            "versions that other clones have in databases of their own don't count; MLFLOW_TRACKING_URI names a registry", fg="yellow"
        )
    click.echo(f"{versions} model versions, and all branches, tags and experiments of this clone keep what they need")
    if not yes and any(one.objects or one.runs for one in found):
        click.echo("nothing was removed; --yes removes it")


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=5000, show_default=True)
@click.option("--server", is_flag=True, help="A server of its own, with artifacts on the development S3 server (`finsight storage`).")
@edge
def mlflow(host: str, port: int, server: bool) -> None:
    """Show this clone's runs and models in the browser, or run an MLflow server for development."""
    from finsight.adapters.mlflow_server import serve, show_runs

    (serve if server else show_runs)(host, port)
