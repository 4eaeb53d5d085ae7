"""Commands that run what stands beside the pipeline: storage, MLflow."""

from __future__ import annotations

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


@click.command()
@click.option("-r", "--remote", default="minio", show_default=True)
@edge
def push(remote: str) -> None:
    """Send data and models to a DVC remote."""
    from finsight.adapters.storage import transfer

    transfer("push", remote)


@click.command()
@click.option("-r", "--remote", default="minio", show_default=True)
@edge
def pull(remote: str) -> None:
    """Fetch data and models from a DVC remote."""
    from finsight.adapters.storage import transfer

    transfer("pull", remote)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=5000, show_default=True)
@click.option("--server", is_flag=True, help="A server of its own, with artifacts on the development S3 server (`finsight storage`).")
@edge
def mlflow(host: str, port: int, server: bool) -> None:
    """Show this clone's runs and models in the browser, or run an MLflow server for development."""
    from finsight.adapters.mlflow_server import serve, show_runs

    (serve if server else show_runs)(host, port)
