"""What this machine's processor, memory, disks, network and GPUs do, for Prometheus. What it has none of, or can't tell, is not there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from finsight.adapters.bounded import begun
from finsight.adapters.gpus import GpuUse, gpu_use, gpus

_PATIENCE = 6.0  # seconds: the driver has five to answer, and Prometheus ten
_MODES = ("user", "system", "idle", "iowait")


class MachineUse(Collector):
    """Asked anew at each scrape. In a container it sees the machine's processor and memory, not its share of them.

    :param places: name → a folder whose disk matters.
    """

    def __init__(self, places: Mapping[str, Path]) -> None:
        self._places = places
        self._has_gpu = bool(gpus())  # a machine does not get one while it runs
        self._asked: Future[list[GpuUse]] | None = None

    def collect(self) -> Iterator[Metric]:
        """See :class:`prometheus_client.registry.Collector`."""
        for look in (_cpu, _memory, partial(_room, self._places), _disks, _network, lambda: _gpus(self._use())):
            with suppress(
                OSError, RuntimeError
            ):  # what a sandbox hides takes nothing from the rest (NotImplementedError is one of the latter)
                yield from look()

    def _use(self) -> Sequence[GpuUse]:
        """What the driver says; nothing while it hangs: not even killing who asks it may help then, and each scrape would take a thread."""
        if not self._has_gpu:
            return ()
        if self._asked is None or self._asked.done():
            self._asked = begun(gpu_use)
        try:
            return self._asked.result(_PATIENCE)
        except TimeoutError:
            return ()


def _cpu() -> Iterator[Metric]:
    family = CounterMetricFamily("finsight_machine_cpu_seconds", "Seconds of all cores, by what they did.", labels=["mode"])
    times = psutil.cpu_times()
    for mode in _MODES:
        if (seconds := getattr(times, mode, None)) is not None:
            family.add_metric([mode], seconds)
    yield family


def _memory() -> Iterator[Metric]:
    memory = psutil.virtual_memory()
    yield GaugeMetricFamily("finsight_machine_memory_available_bytes", "Memory that can be had without swapping.", memory.available)
    yield GaugeMetricFamily("finsight_machine_memory_size_bytes", "Memory of the machine.", memory.total)


def _room(places: Mapping[str, Path]) -> Iterator[Metric]:
    free = GaugeMetricFamily("finsight_disk_free_bytes", "Room on the disk of a folder.", labels=["place"])
    size = GaugeMetricFamily("finsight_disk_size_bytes", "Size of the disk of a folder.", labels=["place"])
    for place, folder in places.items():
        with suppress(OSError):  # it is made when it is first needed
            found = shutil.disk_usage(folder)
            free.add_metric([place], found.free)
            size.add_metric([place], found.total)
    yield from (free, size)


def _disks() -> Iterator[Metric]:
    moved = CounterMetricFamily("finsight_machine_disk_bytes", "Bytes of all disks, by direction.", labels=["direction"])
    if counted := psutil.disk_io_counters():
        moved.add_metric(["read"], counted.read_bytes)
        moved.add_metric(["written"], counted.write_bytes)
    yield moved


def _network() -> Iterator[Metric]:
    family = CounterMetricFamily(
        "finsight_machine_network_bytes", "Bytes of all interfaces but loopback, by direction.", labels=["direction"]
    )
    counted = [one for name, one in psutil.net_io_counters(pernic=True).items() if not name.startswith("lo")]
    family.add_metric(["received"], sum(one.bytes_recv for one in counted))
    family.add_metric(["sent"], sum(one.bytes_sent for one in counted))
    yield family


def _gpus(found: Sequence[GpuUse]) -> Iterator[Metric]:
    families = {
        "busy": GaugeMetricFamily("finsight_gpu_busy_ratio", "Share of the last moment in which a GPU computed.", labels=["gpu"]),
        "memory_used": GaugeMetricFamily("finsight_gpu_memory_used_bytes", "Memory of a GPU in use.", labels=["gpu"]),
        "memory_size": GaugeMetricFamily("finsight_gpu_memory_size_bytes", "Memory of a GPU.", labels=["gpu"]),
        "power": GaugeMetricFamily("finsight_gpu_power_watts", "What a GPU draws.", labels=["gpu"]),
        "temperature": GaugeMetricFamily("finsight_gpu_temperature_celsius", "How warm a GPU is.", labels=["gpu"]),
    }
    for use in found:
        for name, family in families.items():
            if (value := getattr(use, name)) is not None:
                family.add_metric([use.uuid], value)
    yield from families.values()
