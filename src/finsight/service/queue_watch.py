"""How the queue of jobs stands, for Prometheus."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from finsight.errors import UnreachableError
from finsight.service.beside import beside
from finsight.service_ports import Backlog, JobQueue

_LOG = logging.getLogger("finsight.service")
EVERY = 5.0  # seconds between two looks


class QueueWatch(Collector):
    """Looks every few seconds, and not when Prometheus asks: a queue that hangs must not keep it from all other metrics.

    What is not known is not there, rather than 0.
    """

    def __init__(self, queue: JobQueue, every: float = EVERY) -> None:
        self._queue, self._every = queue, every
        self._backlog: Backlog | None = None
        self._up: bool | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Watch while the service lives."""
        async with beside(self._watch()):
            yield

    async def _watch(self) -> None:
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(self._every)

    def look(self) -> None:
        """Ask the queue."""
        try:
            self._backlog, self._up = self._queue.backlog(), True
        except UnreachableError:
            self._backlog, self._up = None, False
        except Exception as error:  # noqa: BLE001  (an edge: without this task what was seen last would be shown for ever)
            if self._up is not False:
                _LOG.error("the queue could not be looked at", exc_info=error)
            self._backlog, self._up = None, False

    def collect(self) -> Iterator[Metric]:
        """See :class:`prometheus_client.registry.Collector`."""
        up = GaugeMetricFamily("finsight_queue_up", "1 where the queue of jobs answers the service.")
        waiting = GaugeMetricFamily("finsight_jobs_waiting", "Jobs that wait for a worker, or for their next attempt.")
        running = GaugeMetricFamily("finsight_jobs_running", "Jobs that a worker has taken.")
        dead = GaugeMetricFamily("finsight_jobs_dead", "Jobs that have used up their attempts, of those that are kept.")
        oldest = GaugeMetricFamily("finsight_jobs_oldest_wait_seconds", "For how long the job that is due the longest has waited.")
        if self._up is not None:
            up.add_metric([], self._up)
        if backlog := self._backlog:
            waiting.add_metric([], backlog.waiting)
            running.add_metric([], backlog.running)
            dead.add_metric([], backlog.dead)
            oldest.add_metric([], backlog.oldest)
        yield from (up, waiting, running, dead, oldest)
