"""Whether what we depend on is there, asked in the cheapest way that is a real answer; each says what it found in a few words.

Each raises a FinsightError that says what is wrong. They may take as long as their timeouts: :mod:`finsight.adapters.bounded` has calls
that nobody waits for.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import requests

from finsight.errors import FinsightError, RefusedError, UnreachableError

SECONDS = 3.0  # to connect, and for each answer


def redis_answers(url: str) -> str:
    """Ask a Redis for its version."""
    from finsight.adapters.redis_connection import answering, connect, refuse_forgetful

    client = connect(url)
    try:
        with answering():
            version = client.info("server")["redis_version"]
        refuse_forgetful(client)
    finally:
        client.close()
    return f"Redis {version}"


def mlflow_answers(uri: str) -> str:
    """Ask MLflow for a registered model, as whoever the environment says we are; MLflow's own client is slow to import."""
    if not uri.startswith(("http://", "https://")):
        return _database(uri)
    where = f"MLflow at {urlsplit(uri).hostname}"
    token, user = os.environ.get("MLFLOW_TRACKING_TOKEN"), os.environ.get("MLFLOW_TRACKING_USERNAME")
    try:
        answer = requests.get(
            f"{uri.rstrip('/')}/api/2.0/mlflow/registered-models/search",
            params={"max_results": 1},
            headers={"Authorization": f"Bearer {token}"} if token and not user else {},
            auth=(user, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if user else None,
            verify=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True,
            timeout=SECONDS,
        )
    except (requests.RequestException, OSError, ValueError) as error:  # whose words may show the address
        raise UnreachableError(
            f"{where}: no answer ({type(error).__name__}); start it, or set MLFLOW_TRACKING_URI to one that runs"
        ) from None
    if answer.status_code in (401, 403):
        raise RefusedError(f"{where}: HTTP {answer.status_code}; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or _TOKEN")
    if answer.status_code != 200:
        raise UnreachableError(f"{where}: HTTP {answer.status_code}; is MLFLOW_TRACKING_URI an MLflow server?")
    return where


def _database(uri: str) -> str:
    if not uri.startswith("sqlite") or not (path := Path(uri.partition(":///")[2])).name:
        raise FinsightError("MLFLOW_TRACKING_URI: expected http(s)://… or sqlite:///…; no other holds a model registry")
    if not path.is_file():
        return "SQLite, made by the first run"
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=SECONDS)) as database:
            database.execute("SELECT version_num FROM alembic_version").fetchall()
    except sqlite3.Error as error:
        raise UnreachableError(f"{path.name}: {error}; is it MLflow's database? `finsight mlflow` shows it") from None
    return "SQLite"


def bucket_answers(uri: str, endpoint: str | None) -> str:
    """Ask S3 for a bucket, with the credentials of the environment."""
    from finsight.adapters.buckets import bucket_client

    bucket = uri.removeprefix("s3://").partition("/")[0]
    with bucket_client(uri, endpoint, tries=1) as client:
        client.head_bucket(Bucket=bucket)
    return f"bucket {bucket}"


def _nearest(folder: Path) -> Path:
    """The folder, or the first above it that is there."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def folder_takes(folder: Path) -> str:
    """Find out whether a folder can be written to; one that is not there yet, whether it can be made."""
    there = _nearest(folder)
    if not os.access(there, os.W_OK | os.X_OK) or not there.is_dir():
        raise FinsightError(f"{folder}: can't be written to by this user; mind its owner, or mount it writable")
    return f"{folder} is writable"


def disk_has(folders: Iterable[Path], least: int) -> str:
    """Find out whether the disks of some folders have so many bytes left."""
    free = {}
    for folder in folders:
        there = _nearest(folder)
        free[folder] = shutil.disk_usage(there).free
    folder, left = min(free.items(), key=lambda item: item[1])
    if left < least:
        raise FinsightError(f"{folder}: {left / 1e9:.1f} GB free, {least / 1e9:.1f} GB are needed; make room")
    return f"{left / 1e9:.0f} GB free"


def gpu_answers() -> str:
    """Ask the driver for its GPUs; a machine without a driver has none, and needs none to predict."""
    if not shutil.which("nvidia-smi"):
        return "none"
    asked = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        raise UnreachableError("the GPU's driver does not answer; does `nvidia-smi` work?") from None
    if done.returncode or not done.stdout.strip():
        said = " ".join((done.stderr or done.stdout).split())[:120]
        raise UnreachableError(f"the GPU's driver has none to give ({said or f'exit code {done.returncode}'}); does `nvidia-smi` work?")
    return "; ".join(" ".join(line.split()) for line in done.stdout.strip().splitlines())
