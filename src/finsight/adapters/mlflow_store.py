"""A connection to MLflow, a server or SQLite in the clone, and what its failures mean."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import requests
from botocore.exceptions import BotoCoreError, ClientError
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException
from sqlalchemy.exc import SQLAlchemyError

from finsight import tracing
from finsight.adapters.network import no_answer
from finsight.adapters.traced_clients import Traced
from finsight.errors import DataError, ParamsError, RefusedError, UnreachableError
from finsight.files import atomic_file

# MLflow would try for minutes; a person waits for the answer here. What the user has set stays. Its connections are pooled as they are.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
TRANSFER_SECONDS = 300  # a server answers an upload only once its own storage has the whole file
SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_FAILURES = (MlflowException, requests.RequestException, SQLAlchemyError, BotoCoreError, ClientError, ConnectionError, TimeoutError)
# SQLite has one writer at a time, and MLflow numbers versions with a read and a write.
_CONFLICTS = ("database is locked", "UNIQUE constraint", "Model Version creation error")
_BACKOFF = (0.1, 0.3, 1.0, 3.0)

# It is there, and will say the same tomorrow.
_IMPOSSIBLE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "INVALID_STATE")

T = TypeVar("T")


def shown(uri: str) -> str:
    """A tracking URI without the credentials that it may carry."""
    return re.sub(r"://[^/?#]+@", "://", uri)


def connect(uri: str) -> MlflowClient:
    """A client of the store at ``uri``.

    :raises UnreachableError: when nothing listens there, within seconds.
    :raises ParamsError: when MLflow knows no such store.
    """
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        if problem := no_answer(uri):
            raise _unreachable(uri, problem)
    elif not parts.scheme.startswith("sqlite"):
        raise ParamsError(
            f"MLFLOW_TRACKING_URI: got {shown(uri)!r}, expected http(s)://… or sqlite:///…; file stores can't hold a model registry"
        )
    else:
        if len(parts.path) < 2:
            raise ParamsError(f"MLFLOW_TRACKING_URI: got {shown(uri)!r}, which names no file; sqlite:////path/mlflow.db does")
        _create_database(Path(parts.path[1:]))
    with reachable(uri):
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    return Traced(client, "mlflow", parts.hostname or "sqlite") if tracing.on() else client


def _create_database(path: Path) -> None:
    """Make the SQLite file under another name first: MLflow's migrations take seconds, and half of them is no database."""
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        with atomic_file(path) as partial, reachable(f"sqlite:///{path}"):
            partial.unlink(missing_ok=True)
            MlflowClient(tracking_uri=f"sqlite:///{partial}").search_experiments(max_results=1)


@contextmanager
def patient() -> Iterator[None]:
    """Wait longer for single answers: files are being moved."""
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"  # read anew for each request
    before = os.environ[name]
    os.environ[name] = str(max(int(before), TRANSFER_SECONDS))
    try:
        yield
    finally:
        os.environ[name] = before


def settled(call: Callable[[], T], passing: Callable[[Exception], bool] | None = None) -> T:
    """The result of a call that is made again, a little later each time, while another process is in its way.

    :param passing: which failures are worth another try; when None conflicts with another writer.
    """
    for seconds in _BACKOFF:
        try:
            return call()
        except _FAILURES as error:
            if not (passing or _conflict)(error):
                raise
        time.sleep(seconds * secrets.SystemRandom().uniform(0.5, 1.5))
    return call()


def _conflict(error: Exception) -> bool:
    return any(words in str(error) for words in _CONFLICTS)


def code(error: Exception) -> str:
    """MLflow's own name of a failure, as ``RESOURCE_DOES_NOT_EXIST``; empty where it has none."""
    return str(getattr(error, "error_code", ""))


@contextmanager
def reachable(uri: str) -> Iterator[None]:
    """Turn failures of MLflow, its database, its storage and the way there into one line.

    :raises UnreachableError: in their place, with nothing secret in it.
    :raises DataError: when MLflow answers that it can't be done: something is not there, or was deleted.
    :raises OSError: when the disk is full.
    """
    try:
        yield
    except _FAILURES as error:
        text = " ".join(str(error).split())
        if "disk is full" in text:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), shown(uri)) from None
        if reason := refusal(error, text):
            raise RefusedError(f"MLflow at {shown(uri)}: {reason}") from None
        if code(error) in _IMPOSSIBLE:
            what = _without_secrets(_cause(text))[:300]
            raise DataError(
                f"MLflow at {shown(uri)}: {what}; put that right there (a deleted run: `mlflow runs restore --run-id …`)"
            ) from None
        raise _unreachable(uri, _without_secrets(_cause(text))[:200]) from None


def _unreachable(uri: str, reason: str) -> UnreachableError:
    return UnreachableError(
        f"MLflow at {shown(uri)}: {reason}; start it, or set MLFLOW_TRACKING_URI to one that runs (unset: SQLite in this clone)"
    )


def _cause(text: str) -> str:
    """What urllib3 has at the end of its many words, or MLflow after the name of the last file that it could not fetch."""
    found = re.search(r"\(Caused by (.+)\)$", text)
    return found[1] if found else text.rpartition("##### ")[2]


def _without_secrets(text: str) -> str:
    for name in SECRETS:
        if secret := os.environ.get(name):
            text = text.replace(secret, "…")
    return text


def refusal(error: Exception, text: str) -> str | None:
    """Why a server that is there has nothing to do with us, and what to set; None where that is not what happened."""
    if found := re.search(r"out-of-date database schema \(([^)]*)\)", text):
        return (
            f"its database is of another MLflow ({found[1]}); keep a copy of it, then `mlflow db upgrade ADDRESS` raises an older one; "
            "a newer one wants the packages that it was written with"
        )
    if any(words in text for words in ("CERTIFICATE_VERIFY_FAILED", "certificate verify failed", "TLS CA certificate bundle")):
        return "its TLS certificate is not trusted; set MLFLOW_TRACKING_SERVER_CERT_PATH to the PEM file of the authority that signed it"
    status = _status(error, text)
    if status == 403 and "Host header" in text:
        return "it does not answer to this host name; start it with --allowed-hosts"
    if status in (401, 403):
        return (
            f"the server refuses the credentials (HTTP {status}); set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
            "or MLFLOW_TRACKING_TOKEN, of someone who may do this"
        )
    return None


def _status(error: Exception, text: str) -> int:
    """The HTTP status behind a failure, 0 where there is none."""
    response = getattr(error, "response", None)
    if isinstance(response, requests.Response):
        return int(response.status_code)
    if isinstance(error, RestException) and "error_code" not in error.json:  # another server's words, in front of MLflow
        return 401 if re.search("unauthori[sz]ed|unauthenticated|not authenticated|forbidden", text, re.IGNORECASE) else 0
    if found := re.search(r"\b(401|403) Client Error", text):  # a download, whose failures are strung together
        return int(found[1])
    return int(error.get_http_status_code()) if isinstance(error, MlflowException) else 0
