"""What a stage of the pipeline leaves for Prometheus once it has ended: a file for a textfile collector, or a group of a Pushgateway.

A stage lives too briefly to be scraped. What it counted before lies where it left it, and is read from there: a counter goes on.
"""

from __future__ import annotations

import fcntl
import resource
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Protocol
from urllib.error import URLError
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, generate_latest, push_to_gateway
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from finsight.adapters.stage_report import numbers
from finsight.errors import FinsightError, ParamsError, StoppedError, UnreachableError
from finsight.files import atomic_file

JOB = "finsight_stage"
OUTCOMES = ("succeeded", "failed", "stopped")
_SECONDS = 5.0  # that a Pushgateway has to answer
_RUNS = "finsight_stage_runs"
_SUCCESS = "finsight_stage_last_success_timestamp_seconds"
Families = Mapping[str, Metric]


class Receiver(Protocol):
    """Keeps the metrics of each stage until the next run of it."""

    def changing(self, stage: str) -> AbstractContextManager[Kept]:
        """What it has of a stage; what stands in ``new`` when the block ends takes its place."""
        ...


@dataclass
class Kept:
    """What a receiver has of a stage, and what it is to have."""

    old: Families
    new: Families


class TextFiles:
    """A folder with a file a stage, as node_exporter's textfile collector reads it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def changing(self, stage: str) -> Iterator[Kept]:
        """See :class:`Receiver`. Runs of one stage in several clones wait for each other."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{stage}.prom"
        with (self._folder / f".{stage}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            kept = Kept(_parsed(path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""), {})
            yield kept
            with atomic_file(path) as partial:
                partial.write_bytes(generate_latest(_registry(kept.new)))
                partial.chmod(0o644)  # the collector is somebody else


class Gateway:
    """A Pushgateway with a group a stage; of two runs of one stage at the same time one may go uncounted.

    :param address: ``http://host:port``.
    :raises ParamsError: when it is none.
    """

    def __init__(self, address: str) -> None:
        try:
            parts = urlsplit(address)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise ParamsError("FINSIGHT_PUSHGATEWAY: expected http://host:port, without a name or password")
        self._address, self._host = address.rstrip("/"), parts.netloc

    @contextmanager
    def changing(self, stage: str) -> Iterator[Kept]:
        """See :class:`Receiver`.

        :raises UnreachableError: when it does not answer.
        """
        try:
            with urllib.request.urlopen(f"{self._address}/metrics", timeout=_SECONDS) as answer:  # noqa: S310 - checked above
                text = answer.read().decode()
            kept = Kept(_parsed(text, {"job": JOB, "stage": stage}), {})
            yield kept
            push_to_gateway(self._address, JOB, _registry(kept.new), {"stage": stage}, timeout=_SECONDS)
        except (URLError, HTTPException, OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise UnreachableError(f"FINSIGHT_PUSHGATEWAY: {self._host} does not take metrics ({' '.join(str(reason).split())})") from None


@contextmanager
def measured(stage: str, report: Path | None, receivers: Sequence[Receiver], warnings: list[str]) -> Iterator[None]:
    """Around a stage: how it ended, what it took and what its report says goes to the receivers.

    :param report: JSON file that the stage writes.
    :param warnings: gets a line for each receiver that could not be told: a stage does not fail for that.
    """
    began, outcome = time.time(), "failed"
    try:
        yield
        outcome = "succeeded"
    except (StoppedError, KeyboardInterrupt):
        outcome = "stopped"
        raise
    finally:
        for receiver in receivers:
            try:
                with receiver.changing(stage) as kept:
                    kept.new = _told(kept.old, stage, report, outcome, began)
            except (FinsightError, OSError) as error:
                warnings.append(str(error))


def _told(old: Families, stage: str, report: Path | None, outcome: str, began: float) -> Families:
    """The families of a run, those of the runs before carried on: their count, the last success, and what that one's report said."""
    now = time.time()
    own = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    runs = CounterMetricFamily(_RUNS, "Runs of a stage, by how they ended.", labels=["stage", "outcome"])
    for name in OUTCOMES:
        before = next((s.value for s in old[_RUNS].samples if s.labels.get("outcome") == name), 0.0) if _RUNS in old else 0.0
        runs.add_metric([stage, name], before + (name == outcome))
    gauges = {
        "finsight_stage_last_run_succeeded": ("Whether the last run of a stage succeeded.", outcome == "succeeded"),
        "finsight_stage_last_run_timestamp_seconds": ("When the last run of a stage ended.", now),
        "finsight_stage_last_run_seconds": ("How long the last run of a stage took.", now - began),
        "finsight_stage_last_run_cpu_seconds": ("Seconds of cores that it took.", sum(one.ru_utime + one.ru_stime for one in own)),
        "finsight_stage_last_run_peak_memory_bytes": ("Most memory of its largest process.", max(one.ru_maxrss for one in own) * 1024),
    }
    found: dict[str, Metric] = {_RUNS: runs, **{name: _gauge(name, meaning, stage, value) for name, (meaning, value) in gauges.items()}}
    if outcome != "succeeded":
        return {**old, **found}
    found[_SUCCESS] = _gauge(_SUCCESS, "When a stage succeeded last.", stage, now)
    return found | {family.name: family for family in numbers(stage, report)}


def _gauge(name: str, meaning: str, stage: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=["stage"])
    family.add_metric([stage], value)
    return family


def receivers(folder: Path | None, gateway: str) -> list[Receiver]:
    """Those that the settings name.

    :raises ParamsError: when an address is none.
    """
    return [*([TextFiles(folder)] if folder else []), *([Gateway(gateway)] if gateway else [])]


class _Fixed(Collector):
    def __init__(self, families: Families) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families.values()


def _registry(families: Families) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Fixed(families))
    return registry


def _parsed(text: str, group: Mapping[str, str] | None = None) -> Families:
    """The families of a text, of one group of a Pushgateway without the labels that it adds; nothing where it is no such text."""
    found: dict[str, Metric] = {}
    try:
        families = list(text_string_to_metric_families(text))
    except ValueError:  # a file that somebody else wrote: counted from here on
        return {}
    for family in families:
        samples = [s for s in family.samples if not group or group.items() <= s.labels.items()]
        if not samples or (group and family.name.startswith(("push_", "go_", "process_", "pushgateway_"))):
            continue
        kept = Metric(family.name, family.documentation, family.type)
        for sample in samples:
            labels = {name: value for name, value in sample.labels.items() if not group or name not in ("job", "instance")}
            kept.add_sample(sample.name, labels, sample.value)
        found[family.name] = kept
    return found
