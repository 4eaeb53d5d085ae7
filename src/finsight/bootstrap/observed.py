"""What Prometheus sees beside what service and worker count themselves: their process and machine, and where it asks for all that."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry

from finsight.adapters.machine_use import MachineUse
from finsight.adapters.metrics_listener import TakenError, add_process, shown
from finsight.settings import Settings, load_settings, project_root


def machine() -> MachineUse:
    """This machine, with the disks of the project, the cache and temporary files."""
    return MachineUse({"project": project_root(), "cache": load_settings().cache, "temporary": Path(tempfile.gettempdir())})


@contextmanager
def service_metrics(registry: CollectorRegistry, settings: Settings) -> Iterator[None]:
    """Show the service's metrics at FINSIGHT_SERVICE_METRICS too, where that is set, as long as the block runs.

    :raises ParamsError: when that is no address.
    :raises TakenError: when something listens there.
    """
    with shown(registry, settings.service_metrics, "FINSIGHT_SERVICE_METRICS"):
        yield


@contextmanager
def worker_metrics(registry: CollectorRegistry, say: Callable[[str], None]) -> Iterator[None]:
    """Show a worker's metrics at FINSIGHT_WORKER_METRICS while the block runs; a second worker of a machine works without, and says so.

    :raises ParamsError: when that is no address.
    :raises TakenError: when something listens at one that was chosen.
    """
    settings = load_settings()
    add_process(registry)
    registry.register(machine())
    with ExitStack() as listening:
        try:
            listening.enter_context(shown(registry, settings.worker_metrics, "FINSIGHT_WORKER_METRICS"))
        except TakenError as taken:
            if "worker_metrics" in settings.model_fields_set:
                raise
            say(f"warning: {taken}; this worker shows none")
        yield
