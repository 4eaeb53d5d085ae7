"""What service and worker count: predictions and their drift, the queue, jobs, the machine; and where it is shown."""

import asyncio
import os
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, generate_latest

from conftest import LABELS
from finsight.adapters.gpus import GpuUse, gpus
from finsight.adapters.jobs import Work
from finsight.adapters.machine_use import MachineUse
from finsight.adapters.metrics_listener import TakenError, shown
from finsight.bootstrap.observed import worker_metrics
from finsight.bootstrap.reference import reference
from finsight.domain.drift import index_drift
from finsight.domain.jobs import Job, Kind, Order
from finsight.domain.reference import CONFIDENCES, Reference, counted
from finsight.errors import ParamsError, UnreachableError
from finsight.service.predicted import WINDOW, Predicted
from finsight.service.queue_watch import QueueWatch
from finsight.service.worker import Worker
from finsight.service_ports import Backlog, Lease
from memory_queue import MemoryQueue
from servers import free_port
from shell_workers import until


def sure(label: int, confidence: float, n: int = 1) -> NDArray[np.float64]:
    """Rows of one label."""
    rows = np.full((n, 3), (1 - confidence) / 2)
    rows[:, label] = confidence
    return rows


def of(collector: Any) -> Callable[..., float | None]:
    registry = CollectorRegistry()
    registry.register(collector)
    return lambda name, **labels: registry.get_sample_value(name, labels)


def test_rows_are_counted_by_label_and_bin() -> None:
    rows = np.concatenate([sure(0, 0.4), sure(0, 0.41), sure(2, 1.0), sure(2, np.nextafter(1, 2))])
    found = counted(rows)
    assert found.shape == (3, len(CONFIDENCES))
    assert found.sum() == 4
    assert found[0, CONFIDENCES.index(0.4)] == 1
    assert found[0, CONFIDENCES.index(0.5)] == 1
    assert found[2, -1] == 2


def test_predictions_are_counted_by_label_with_their_confidence() -> None:
    predicted = Predicted()
    predicted.begin(LABELS, {"accuracy": 0.75}, None)
    value = of(predicted)
    assert value("finsight_predictions_total", label="neutral") == 0
    for _ in range(100):
        predicted.saw(np.concatenate([sure(0, 0.95), sure(2, 0.55)]))
    assert [value("finsight_predictions_total", label=label) for label in LABELS] == [100, 0, 100]
    assert value("finsight_prediction_confidence_bucket", le="0.5") == 0
    assert value("finsight_prediction_confidence_bucket", le="0.6") == 100
    assert value("finsight_prediction_confidence_bucket", le="+Inf") == value("finsight_prediction_confidence_count") == 200
    assert value("finsight_prediction_confidence_sum") == pytest.approx(150)
    assert value("finsight_model_test_score", metric="accuracy") == 0.75
    assert value("finsight_prediction_drift_psi", of="labels") is None  # what is not known is not 0


def test_drift_is_that_of_the_latest_predictions_against_the_training_rows() -> None:
    predicted = Predicted()
    like = counted(np.concatenate([sure(0, 0.8, 100), sure(1, 0.95, 100), sure(2, 0.65, 100)]))
    predicted.begin(LABELS, {}, Reference([1000, 1000, 1000], (like.sum(axis=0) * 10).tolist()))
    value = of(predicted)
    for _ in range(WINDOW // 3):
        predicted.saw(np.concatenate([sure(0, 0.8), sure(1, 0.95), sure(2, 0.65)]))
    assert value("finsight_prediction_drift_psi", of="labels") == 0
    assert value("finsight_prediction_drift_psi", of="confidence") == 0
    predicted.saw(sure(0, 0.8, WINDOW // 2))
    rows, labels = value("finsight_prediction_drift_rows"), value("finsight_prediction_drift_psi", of="labels")
    assert rows
    assert WINDOW <= rows < WINDOW + WINDOW // 2
    third = (rows - WINDOW // 2) / 3
    assert labels == pytest.approx(index_drift([1000] * 3, [third + WINDOW // 2, third, third]), abs=0.01)
    assert labels > 0.25
    predicted.begin(LABELS, {}, Reference([1, 1, 1], [1] * len(CONFIDENCES)))
    assert value("finsight_prediction_drift_rows") == 0  # those of the bundle before say nothing of this one
    assert value("finsight_predictions_total", label="neutral") == WINDOW // 3


def test_without_predictions_there_is_no_drift() -> None:
    predicted = Predicted()
    predicted.begin(LABELS, {}, Reference([10, 2000, 10], [0, 0, 5, 5, 10, 20, 40, 60, 200, 400]))
    value = of(predicted)
    assert value("finsight_prediction_drift_rows") == 0
    for what in ("labels", "confidence"):
        assert value("finsight_prediction_drift_psi", of=what) is None
    predicted.saw(sure(0, 0.5))
    for what in ("labels", "confidence"):
        assert value("finsight_prediction_drift_psi", of=what) == 0


@pytest.mark.parametrize("export", ['{"bundle_sha256": "another"}', "{}", "no JSON"])
def test_reports_of_another_bundle_are_no_reference(in_folder: Path, export: str) -> None:
    (in_folder / "dvc.yaml").touch()
    (in_folder / "reports").mkdir()
    (in_folder / "reports/export.json").write_text(export)
    assert reference("0" * 64, LABELS, None) is None


def test_the_queue_is_watched_and_what_is_not_known_is_not_there() -> None:
    queue = MemoryQueue()
    queue.submit(Order(Kind.TRAIN, {}, "a", "b"))
    watch = QueueWatch(queue)  # type: ignore[arg-type]
    value = of(watch)
    assert value("finsight_jobs_waiting") is None
    assert value("finsight_queue_up") is None
    watch.look()
    assert (value("finsight_jobs_waiting"), value("finsight_jobs_running"), value("finsight_jobs_dead")) == (1, 0, 0)
    assert value("finsight_queue_up") == 1

    class Away:
        def backlog(self) -> Backlog:
            raise UnreachableError("away")

    watch._queue = Away()  # type: ignore[assignment]
    watch.look()
    assert (value("finsight_jobs_waiting"), value("finsight_queue_up")) == (None, 0)


def test_the_queue_is_watched_on_after_what_nobody_foresaw(caplog: pytest.LogCaptureFixture) -> None:
    class Odd:
        def __init__(self) -> None:
            self.answers = iter([ValueError("no Lua"), ValueError("no Lua"), Backlog(1, 0, 0, 0.0)])

        def backlog(self) -> Backlog:
            answer = next(self.answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

    watch = QueueWatch(Odd(), every=0.01)  # type: ignore[arg-type]
    value = of(watch)

    async def lives() -> None:
        async with watch.running():
            while value("finsight_queue_up") is None:
                await asyncio.sleep(0.001)
            assert value("finsight_queue_up") == 0
            while value("finsight_jobs_waiting") != 1:
                await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(lives(), 10))
    assert len([one for one in caplog.records if one.levelname == "ERROR" and "looked at" in one.message]) == 1


def test_a_worker_says_that_its_queue_answered_while_the_job_runs(tmp_path: Path) -> None:
    queue, seen = MemoryQueue(), []
    queue.submit(Order(Kind.TRAIN, {}, "a", "b"))

    def work(_: Job) -> Work:
        seen.append(worker.meters.registry.get_sample_value("finsight_worker_queue_up"))
        return Work([], tmp_path, {})

    worker = Worker(queue, work)  # type: ignore[arg-type]
    assert worker.once(lambda: False)
    assert seen == [1]


def test_a_worker_counts_its_attempts(tmp_path: Path) -> None:
    queue = MemoryQueue(pause=0)
    for number, script in enumerate(("exit 0", "exit 1")):
        queue.submit(Order(Kind.TRAIN, {"script": script}, "a", str(number)))

    def work(job: Job) -> Work:
        return Work([["sh", "-c", str(job.order.parameters["script"])]], tmp_path, dict(os.environ))

    worker = Worker(queue, work)  # type: ignore[arg-type]
    value = worker.meters.registry.get_sample_value
    assert value("finsight_job_attempts_total", {"kind": "score", "outcome": "given_back"}) == 0  # there before the first
    for _ in range(4):
        assert worker.once(lambda: False)
    assert not worker.once(lambda: False)
    assert value("finsight_job_attempts_total", {"kind": "train", "outcome": "succeeded"}) == 1
    assert value("finsight_job_attempts_total", {"kind": "train", "outcome": "broken"}) == 3
    assert value("finsight_job_seconds_count", {"kind": "train"}) == 4
    assert value("finsight_job_wait_seconds_count", {"kind": "train"}) == 2
    assert value("finsight_worker_busy", {}) == 0


def test_a_worker_says_whether_its_queue_answers(tmp_path: Path) -> None:
    class Away(MemoryQueue):
        def take(self, worker: str) -> Lease | None:
            raise UnreachableError("away")

    for queue, up in ((MemoryQueue(), 1), (Away(), 0)):
        looks = iter([False, True])
        worker = Worker(queue, lambda job: Work([], tmp_path, {}))  # type: ignore[arg-type]
        worker.run(lambda looks=looks: next(looks))
        assert worker.meters.registry.get_sample_value("finsight_worker_queue_up") == up


def test_the_machine_shows_what_it_has_and_nothing_else(tmp_path: Path) -> None:
    value = of(MachineUse({"here": tmp_path, "nowhere": tmp_path / "none"}))
    free, size = value("finsight_disk_free_bytes", place="here"), value("finsight_disk_size_bytes", place="here")
    assert free
    assert size
    assert 0 < free < size
    assert value("finsight_disk_free_bytes", place="nowhere") is None
    assert value("finsight_machine_memory_size_bytes")
    assert value("finsight_machine_cpu_seconds_total", mode="user")
    text = generate_latest(MachineUse({})).decode()
    assert ("\nfinsight_gpu_busy_ratio{" in text) == bool(gpus())


@pytest.mark.parametrize("error", [NotImplementedError("no /proc/diskstats"), PermissionError(13, "hidden")])
def test_what_a_sandbox_hides_takes_nothing_from_the_rest(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(**_: Any) -> None:
        raise error

    for name in ("cpu_times", "disk_io_counters", "net_io_counters"):
        monkeypatch.setattr(f"psutil.{name}", hidden)
    value = of(MachineUse({"here": tmp_path}))
    assert value("finsight_machine_memory_size_bytes")
    assert value("finsight_disk_free_bytes", place="here")
    assert value("finsight_machine_network_bytes_total", direction="sent") is None


def test_a_driver_that_hangs_is_asked_once_and_holds_up_no_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    over, asked = threading.Event(), []

    def hang() -> list[GpuUse]:
        asked.append(1)
        over.wait(30)
        return [GpuUse("GPU-1", 0.5, None, None, None, None)]

    monkeypatch.setattr("finsight.adapters.machine_use.gpus", lambda: ["GPU-1"])
    monkeypatch.setattr("finsight.adapters.machine_use.gpu_use", hang)
    monkeypatch.setattr("finsight.adapters.machine_use._PATIENCE", 0.05, raising=False)
    value = of(MachineUse({}))
    began = time.monotonic()
    for _ in range(5):
        assert value("finsight_gpu_busy_ratio", gpu="GPU-1") is None
    assert time.monotonic() - began < 5
    assert asked == [1]
    over.set()
    until(lambda: value("finsight_gpu_busy_ratio", gpu="GPU-1") == 0.5)


def test_what_a_gpu_does_not_measure_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"  # as an H200 answered, but for the second card
    lines = ("GPU-c49e3db9, 12, 2048, 143771, 79.27, 37", "GPU-2, [N/A], 0, 143771, [N/A], 36")
    index = "0, GPU-c49e3db9\\n1, GPU-2"
    program.write_text(f"#!/bin/sh\ncase $1 in *index*) printf '{index}\\n';; *) echo '{lines[0]}'; echo '{lines[1]}';; esac\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus() == ["GPU-c49e3db9", "GPU-2"]
    value = of(MachineUse({}))
    assert value("finsight_gpu_busy_ratio", gpu="GPU-c49e3db9") == pytest.approx(0.12)
    assert value("finsight_gpu_memory_used_bytes", gpu="GPU-c49e3db9") == 2 * 2**30
    assert value("finsight_gpu_power_watts", gpu="GPU-c49e3db9") == 79.27
    assert value("finsight_gpu_busy_ratio", gpu="GPU-2") is None
    assert value("finsight_gpu_power_watts", gpu="GPU-2") is None
    assert value("finsight_gpu_temperature_celsius", gpu="GPU-2") == 36


def test_a_listener_shows_metrics_where_it_is_told_to() -> None:
    registry = CollectorRegistry()
    Counter("some", "", registry=registry).inc()
    port = free_port()
    with shown(registry, str(port), "X"):
        assert b"some_total 1.0" in urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read()
        with pytest.raises(TakenError, match=f"X: something listens on 127.0.0.1:{port}"), shown(registry, f"127.0.0.1:{port}", "X"):
            pass
    with shown(registry, f"[::1]:{port}", "X"):
        assert urllib.request.urlopen(f"http://[::1]:{port}/metrics").status == 200
    with shown(registry, "", "X"):
        pass


@pytest.mark.parametrize("address", ["here", "127.0.0.1:", "127.0.0.1:70000", "127.0.0.1:0", "192.0.2.1:9109"])
def test_an_address_that_is_none_of_this_machine_is_said_in_a_line(address: str) -> None:
    with pytest.raises(ParamsError, match="^X: "), shown(CollectorRegistry(), address, "X"):
        pass


def test_a_second_worker_works_without_metrics_unless_it_was_told_where(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port, said = free_port(), list[str]()
    monkeypatch.setenv("FINSIGHT_WORKER_METRICS", f"127.0.0.1:{port}")
    with worker_metrics(CollectorRegistry(), said.append), pytest.raises(TakenError), worker_metrics(CollectorRegistry(), said.append):
        pass
    monkeypatch.delenv("FINSIGHT_WORKER_METRICS")
    with worker_metrics(CollectorRegistry(), said.append), worker_metrics(CollectorRegistry(), said.append):
        pass
    assert said[-1].startswith("warning: FINSIGHT_WORKER_METRICS: something listens on 127.0.0.1:9109")
