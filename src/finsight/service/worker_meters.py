"""What a worker counts of its jobs, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from finsight.domain.jobs import Job, Kind
from finsight.service_ports import Ending, Outcome

_SECONDS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600)
LOST = "lost"
"""How an attempt ended whose job is another worker's by now."""


class WorkerMeters:
    """One set a worker; each series is there from the beginning, so that the first failure is seen as an increase."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # as in finsight.service.meters
        kept = self.registry = CollectorRegistry()
        self.attempts = Counter("finsight_job_attempts", "Attempts at jobs, by how they ended.", ["kind", "outcome"], registry=kept)
        self.seconds = Histogram("finsight_job_seconds", "How long an attempt took.", ["kind"], buckets=_SECONDS, registry=kept)
        self.waited = Histogram(
            "finsight_job_wait_seconds", "From an order to its first attempt.", ["kind"], buckets=_SECONDS, registry=kept
        )
        self.busy = Gauge("finsight_worker_busy", "1 while a job runs.", registry=kept)
        self.reached = Gauge("finsight_worker_queue_up", "1 where the queue answered when the worker last looked for a job.", registry=kept)
        for kind in Kind:
            self.seconds.labels(kind)
            self.waited.labels(kind)
            for outcome in (*Ending, LOST):
                self.attempts.labels(kind, _label(outcome))

    def began(self, job: Job) -> None:
        """An attempt begins."""
        self.busy.set(1)
        if job.attempt == 1 and job.started is not None:
            self.waited.labels(job.order.kind).observe(max(0.0, job.started - job.created))

    def ended(self, job: Job, outcome: Outcome | None, seconds: float) -> None:
        """It has ended.

        :param outcome: None where the job is another worker's by now.
        """
        self.busy.set(0)
        self.attempts.labels(job.order.kind, _label(outcome.ending if outcome else LOST)).inc()
        self.seconds.labels(job.order.kind).observe(seconds)


def _label(outcome: str) -> str:
    return str(outcome).replace(" ", "_")
