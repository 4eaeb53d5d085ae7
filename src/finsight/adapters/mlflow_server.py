"""MLflow's own server, for development: its pages over this clone's runs, or a whole server with artifacts in the development S3."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import click

from finsight.adapters.child import run_child
from finsight.adapters.network import no_answer
from finsight.errors import FinsightError, ParamsError, UnreachableError
from finsight.settings import load_settings, project_root

REMOTE, FOLDER = "minio", "mlflow"
DATABASE = Path(".storage/mlflow.db")


def show_runs(host: str, port: int) -> None:
    """Serve MLflow's pages over the tracking database of this clone until interrupted.

    :raises ParamsError: when ``MLFLOW_TRACKING_URI`` names a server, which has pages of its own.
    """
    uri = load_settings().tracking_uri()
    if uri.startswith("http"):
        raise ParamsError(f"MLFLOW_TRACKING_URI names a server: open {uri} in the browser")
    _check_free(host, port)
    click.echo(f"MLflow on http://{host}:{port} (no login: keep it on this machine), Ctrl-C stops it")
    _serve(host, port, ["--backend-store-uri", uri], os.environ)


def serve(host: str, port: int) -> None:
    """Run a tracking server and registry with a database of its own and artifacts in the development S3, until interrupted.

    :raises UnreachableError: when the S3 server does not answer.
    :raises FinsightError: when the port is taken.
    :raises ParamsError: when .dvc/config does not say where it is, or no key for it is known.
    """
    _check_free(host, port)
    endpoint, bucket, environment = _development_s3()
    if problem := no_answer(endpoint):
        raise UnreachableError(f"S3 at {endpoint}: {problem}; start it in another terminal: `make storage`")
    from finsight.adapters.mlflow_store import connect

    database = project_root() / DATABASE
    database.parent.mkdir(parents=True, exist_ok=True)
    connect(f"sqlite:///{database}")  # makes it whole or not at all, which the server itself does not
    destination = f"s3://{bucket}/{FOLDER}"
    click.echo(f"MLflow, database {DATABASE}, artifacts in {destination} (no login: keep it on this machine), Ctrl-C stops it; use it with")
    click.echo(f"export MLFLOW_TRACKING_URI=http://{host}:{port}")
    storage = ["--backend-store-uri", f"sqlite:///{database}", "--serve-artifacts", "--artifacts-destination", destination]
    _serve(host, port, storage, environment)


def _check_free(host: str, port: int) -> None:
    """MLflow ends with 0 where its port is taken."""
    if no_answer(f"http://{host}:{port}") is None:
        raise FinsightError(f"{host}:{port}: something listens there already; end it, or choose another port with --port")


def _serve(host: str, port: int, options: list[str], environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "mlflow", "server", *options, "--host", host, "--port", str(port), "--workers", "1"]
    # Its job runners are for evaluations that we don't ask of it; each would be a process more.
    code = run_child(command, {**environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
    if code:
        raise FinsightError(f"MLflow's server ended with {code}; its own message stands above")


def _development_s3() -> tuple[str, str, dict[str, str]]:
    """Endpoint, bucket, and an environment with the key: a command line is visible to every user of the machine."""
    from dvc.config import Config

    remote = Config(str(project_root() / ".dvc"))["remote"].get(REMOTE, {})
    endpoint = remote.get("endpointurl")
    if not endpoint:
        raise ParamsError(f"remote {REMOTE!r} has no endpointurl in .dvc/config; `dvc remote modify {REMOTE} endpointurl http://…` sets it")
    environment = {
        # rclone answers ranges without the checksums that botocore asks for by default; MinIO and S3 are indifferent.
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_DEFAULT_REGION": "us-east-1",
        "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE": "path",
        **os.environ,
        "MLFLOW_S3_ENDPOINT_URL": endpoint,
    }
    if "access_key_id" in remote and "secret_access_key" in remote:
        environment |= {"AWS_ACCESS_KEY_ID": remote["access_key_id"], "AWS_SECRET_ACCESS_KEY": remote["secret_access_key"]}
        for other in ("AWS_SESSION_TOKEN", "AWS_PROFILE"):  # of another key
            environment.pop(other, None)
    elif "AWS_ACCESS_KEY_ID" not in environment:
        raise ParamsError(
            f"remote {REMOTE!r}: no key in .dvc/config.local; `make storage` makes one, or set AWS_ACCESS_KEY_ID and its secret"
        )
    return str(endpoint), urlsplit(remote["url"]).netloc, environment
