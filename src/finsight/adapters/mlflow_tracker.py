"""MLflow as experiment tracker."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from mlflow.artifacts import download_artifacts
from mlflow.entities import Metric, Param, RunStatus
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.utils.time import get_current_time_millis

from finsight.adapters.mlflow_store import code, connect, patient, reachable, settled
from finsight.errors import ArtifactError
from finsight.pipeline.tracking import STATE_TAG

SAMPLED = 10  # seconds between two samples of the system's use


def _environment() -> dict[str, str]:
    """Where a run takes place, as tags: versions of what computes, the processor, the system."""
    packages = {f"env.{name}": version(name) for name in ("torch", "transformers", "tokenizers", "numpy")}
    return {**packages, "env.python": platform.python_version(), "env.system": platform.platform(), "env.cpus": str(os.cpu_count())}


def _broken_off(error: Exception) -> bool:
    return any(words in str(error) for words in ("Connection broken", "Connection aborted", "IncompleteRead"))


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
            self._id = found.experiment_id if found else self._create_experiment(beside)
        return self._id

    def _create_experiment(self, location: str | None) -> str:
        try:
            return str(settled(lambda: self._client.create_experiment(self._experiment, artifact_location=location)))
        except MlflowException as error:
            if code(error) != "RESOURCE_ALREADY_EXISTS":
                raise
            return str(self._client.get_experiment_by_name(self._experiment).experiment_id)  # of another process

    def find(self, tags: Mapping[str, str]) -> str | None:
        """See :class:`finsight.ports.ExperimentTracker`."""
        with reachable(self._uri):
            wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
            runs = self._client.search_runs([self._experiment_id()], f"{wanted} and attributes.status = 'FINISHED'", max_results=1)
            return runs[0].info.run_id if runs else None

    def start(self, name: str, params: Mapping[str, str], watched: bool = False, parent: str = "") -> str:
        """See :class:`finsight.ports.ExperimentTracker`."""
        with reachable(self._uri):
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
        with reachable(self._uri):
            self._client.log_batch(run, metrics=[Metric(key, float(value), now, step) for key, value in metrics.items()])

    def log_files(self, run: str, paths: Sequence[Path], folder: str) -> None:
        """See :class:`finsight.ports.ExperimentTracker`."""
        with reachable(self._uri):
            self._client.get_run(run)  # a server that is silent is found out before we are patient with it
            with patient():
                for path in paths:
                    if path.is_dir():
                        self._client.log_artifacts(run, str(path), f"{folder}/{path.name}")
                    else:
                        self._client.log_artifact(run, str(path), folder)

    def fetch(self, run: str, folder: str, into: Path) -> None:
        """See :class:`finsight.ports.ExperimentTracker`."""
        with reachable(self._uri), TemporaryDirectory(dir=into.parent) as made:
            try:
                there = self._client.list_artifacts(run, folder)
            except MlflowException as error:
                if code(error) != "RESOURCE_DOES_NOT_EXIST":
                    raise
                raise ArtifactError(f"run {run}: MLflow has it no more; give the alias to another version") from None
            if not there:
                raise ArtifactError(f"run {run}: it has no {folder}; `dvc repro register` sends it, where the model was made")
            for path in self._download(run, folder, made).iterdir():
                path.rename(into / path.name)

    def _download(self, run: str, folder: str, into: str) -> Path:
        """MLflow tries a request again, but not a download that breaks off, and by the run's id it would not say what went wrong."""
        source = f"{self._client.get_run(run).info.artifact_uri}/{folder}"
        with patient():
            return Path(settled(lambda: download_artifacts(source, dst_path=into, tracking_uri=self._uri), passing=_broken_off))

    def finish(self, run: str, tags: Mapping[str, str], failed: bool = False) -> None:
        """See :class:`finsight.ports.ExperimentTracker`."""
        with reachable(self._uri):
            if self._monitor:
                self._monitor.finish()
                self._monitor = None
            # A run is found by its state and by having ended: the state comes last, so that what is found is complete.
            for key in tags.keys() - {STATE_TAG}:
                self._client.set_tag(run, key, tags[key])
            self._client.set_terminated(run, RunStatus.to_string(RunStatus.FAILED if failed else RunStatus.FINISHED))
            if STATE_TAG in tags:
                self._client.set_tag(run, STATE_TAG, tags[STATE_TAG])
