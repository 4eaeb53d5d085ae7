"""MLflow as experiment tracker and model registry: a server, or SQLite in the clone."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import requests
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunStatus
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.utils.time import get_current_time_millis
from sqlalchemy.exc import SQLAlchemyError

from finsight.adapters.network import no_answer
from finsight.errors import ArtifactError, ParamsError, UnreachableError
from finsight.files import atomic_file
from finsight.pipeline.tracking import BUNDLE_TAG, STATE_TAG
from finsight.ports import ModelVersion

SAMPLED = 10  # seconds between two samples of the system's use
# MLflow would try for minutes; a person waits for the answer here. What the user has set stays.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def shown(uri: str) -> str:
    """A tracking URI without the credentials that it may carry."""
    return re.sub(r"://[^/@]+@", "://", uri)


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
        _create_database(Path(parts.path[1:]))
    with _reachable(uri):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _create_database(path: Path) -> None:
    """Make the SQLite file under another name first: MLflow's migrations take seconds, and half of them is no database."""
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        with atomic_file(path) as partial, _reachable(f"sqlite:///{path}"):
            partial.unlink(missing_ok=True)
            MlflowClient(tracking_uri=f"sqlite:///{partial}").search_experiments(max_results=1)


def _unreachable(uri: str, reason: str) -> UnreachableError:
    return UnreachableError(
        f"MLflow at {shown(uri)}: {reason}; start it, or set MLFLOW_TRACKING_URI to one that runs (unset: SQLite in this clone)"
    )


@contextmanager
def _reachable(uri: str) -> Iterator[None]:
    try:
        yield
    except (MlflowException, requests.RequestException, SQLAlchemyError, ConnectionError, TimeoutError) as error:
        if "disk is full" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), shown(uri)) from None
        raise _unreachable(uri, " ".join(str(error).split())[:200]) from None


def _environment() -> dict[str, str]:
    """Where a run takes place, as tags: versions of what computes, the processor, the system."""
    packages = {f"env.{name}": version(name) for name in ("torch", "transformers", "tokenizers", "numpy")}
    return {**packages, "env.python": platform.python_version(), "env.system": platform.platform(), "env.cpus": str(os.cpu_count())}


class MlflowTracker:
    """Runs of one experiment."""

    def __init__(self, uri: str, experiment: str) -> None:
        self._uri, self._experiment = uri, experiment
        self._client = connect(uri)
        self._id: str | None = None
        self._monitor: SystemMetricsMonitor | None = None

    def _experiment_id(self) -> str:
        if self._id is None:
            found = self._client.get_experiment_by_name(self._experiment)
            # Beside the database: MLflow's own default is the working folder, which is a passing one in `dvc exp run --temp`.
            parts = urlsplit(self._uri)
            beside = (
                (Path(parts.path[1:]).resolve().parent / "mlruns" / self._experiment).as_uri()
                if parts.scheme.startswith("sqlite")
                else None
            )
            self._id = found.experiment_id if found else self._client.create_experiment(self._experiment, artifact_location=beside)
        return self._id

    def find(self, tags: Mapping[str, str]) -> str | None:
        """See :class:`finsight.ports.ExperimentTracker`."""
        with _reachable(self._uri):
            wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
            runs = self._client.search_runs([self._experiment_id()], f"{wanted} and attributes.status = 'FINISHED'", max_results=1)
            return runs[0].info.run_id if runs else None

    def start(self, name: str, params: Mapping[str, str], watched: bool = False, parent: str = "") -> str:
        """See :class:`finsight.ports.ExperimentTracker`."""
        with _reachable(self._uri):
            nested = {"mlflow.parentRunId": parent} if parent else {}
            run = self._client.create_run(self._experiment_id(), run_name=name, tags=nested).info.run_id
            pairs = [Param(key, value) for key, value in params.items()]
            for i in range(0, len(pairs), 100):  # the server takes 100 a request
                self._client.log_batch(run, params=pairs[i : i + 100])
            if watched:
                for name, value in _environment().items():
                    self._client.set_tag(run, name, value)
                self._monitor = SystemMetricsMonitor(run, sampling_interval=SAMPLED, tracking_uri=self._uri)
                self._monitor.start()
            return str(run)

    def log_metrics(self, run: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """See :class:`finsight.ports.ExperimentTracker`."""
        now = get_current_time_millis()
        with _reachable(self._uri):
            self._client.log_batch(run, metrics=[Metric(key, float(value), now, step) for key, value in metrics.items()])

    def log_files(self, run: str, paths: Sequence[Path], folder: str) -> None:
        """See :class:`finsight.ports.ExperimentTracker`."""
        with _reachable(self._uri):
            for path in paths:
                if path.is_dir():
                    self._client.log_artifacts(run, str(path), f"{folder}/{path.name}")
                else:
                    self._client.log_artifact(run, str(path), folder)

    def fetch(self, run: str, folder: str, into: Path) -> None:
        """See :class:`finsight.ports.ExperimentTracker`."""
        with _reachable(self._uri), TemporaryDirectory(dir=into.parent) as made:
            try:
                there = self._client.list_artifacts(run, folder)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                raise ArtifactError(f"run {run}: MLflow has it no more; give the alias to another version") from None
            if not there:
                raise ArtifactError(f"run {run}: it has no {folder}; `dvc repro register` sends it, where the model was made")
            for path in Path(self._client.download_artifacts(run, folder, made)).iterdir():
                path.rename(into / path.name)

    def finish(self, run: str, tags: Mapping[str, str], failed: bool = False) -> None:
        """See :class:`finsight.ports.ExperimentTracker`."""
        with _reachable(self._uri):
            if self._monitor:
                self._monitor.finish()
                self._monitor = None
            # A run is found by its state and by having ended: the state comes last, so that what is found is complete.
            for key in tags.keys() - {STATE_TAG}:
                self._client.set_tag(run, key, tags[key])
            self._client.set_terminated(run, RunStatus.to_string(RunStatus.FAILED if failed else RunStatus.FINISHED))
            if STATE_TAG in tags:
                self._client.set_tag(run, STATE_TAG, tags[STATE_TAG])


class MlflowRegistry:
    """Versions of one registered model."""

    def __init__(self, uri: str, model: str) -> None:
        self._uri, self._model = uri, model
        self._client = connect(uri)

    def versions(self) -> list[ModelVersion]:
        """See :class:`finsight.ports.ModelRegistry`."""
        with _reachable(self._uri):
            found: list[ModelVersion] = []
            token: str | None = None
            while token != "":
                page = self._client.search_model_versions(f"name = '{self._model}'", max_results=200, page_token=token)
                found += [ModelVersion(int(v.version), v.tags.get(BUNDLE_TAG, ""), v.run_id or "", frozenset(v.aliases)) for v in page]
                token = page.token or ""
            return sorted(self._with_aliases(found), key=lambda v: v.number)

    def _with_aliases(self, versions: list[ModelVersion]) -> list[ModelVersion]:
        # search_model_versions leaves aliases empty; the registered model has them all.
        if not versions:
            return versions
        held: dict[int, set[str]] = {}
        for alias, number in self._client.get_registered_model(self._model).aliases.items():
            held.setdefault(int(number), set()).add(alias)
        return [ModelVersion(v.number, v.bundle_digest, v.run, frozenset(held.get(v.number, ()))) for v in versions]

    def create(self, run: str, artifact: str, bundle_digest: str, tags: Mapping[str, str]) -> ModelVersion:
        """See :class:`finsight.ports.ModelRegistry`."""
        with _reachable(self._uri):
            if not self._client.search_registered_models(f"name = '{self._model}'"):
                self._client.create_registered_model(self._model)
            source = self._client.get_run(run).info.artifact_uri
            made = self._client.create_model_version(
                self._model, source=f"{source}/{artifact}", run_id=run, tags={**tags, BUNDLE_TAG: bundle_digest}
            )
            return ModelVersion(int(made.version), bundle_digest, run, frozenset())

    def set_alias(self, alias: str, version: int) -> None:
        """See :class:`finsight.ports.ModelRegistry`."""
        with _reachable(self._uri):
            self._client.set_registered_model_alias(self._model, alias, str(version))
