"""Jobs that wait, run and end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from finsight.domain.jobs import Event, Job, Kind, Limits, Order, State
from finsight.errors import FinsightError, ParamsError


class QueueFullError(FinsightError):
    """So many jobs wait that no further one is taken."""


class TooManyJobsError(FinsightError):
    """A tenant has as many jobs under way as it may."""


class ReusedKeyError(ParamsError):
    """An idempotency key came again with another order."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A job in the hands of one worker, for as long as it says so in time.

    :param token: rises with each lease that is given, so that a worker that comes too late is known by its lower one.
    :param seconds: how long it lasts from the last :meth:`JobQueue.tell` on.
    :param last: whether the job is dead where this attempt breaks.
    """

    job: Job
    token: int
    seconds: float
    last: bool = False


class Word(StrEnum):
    """What a worker is told when it tells."""

    GO_ON = "go on"
    CANCEL = "cancel"
    LOST = "lost"
    """The job is another worker's now, or nobody's."""


class Ending(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Trying again can't help."""
    BROKEN = "broken"
    """It may: the job is queued again after a while, or is dead after its last attempt."""
    CANCELLED = "cancelled"
    GIVEN_BACK = "given back"
    """The worker has to go; the attempt does not count."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended, and what came of it; see :class:`~finsight.domain.jobs.Job`."""

    ending: Ending
    error: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    experiment: str = ""
    result: str = ""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What stands in a queue.

    :param waiting: queued jobs, those that wait for their next attempt among them.
    :param running: jobs that a worker has taken, also one that was lost and is not yet taken back.
    :param dead: jobs whose attempts are used up, of those that are kept.
    :param oldest: seconds for which the job that is due the longest has been so; 0 where none is.
    """

    waiting: int
    running: int
    dead: int
    oldest: float


class JobQueue(Protocol):
    """Jobs, each run at least once and by one worker at a time. Every change is one step: it has happened whole, or not at all.

    Every method raises UnreachableError when the queue's server does not answer.
    """

    def submit(self, order: Order, key: str = "", limits: Limits | None = None) -> tuple[Job, bool]:
        """Queue a job, or find the one of the same content that is queued, running or has succeeded; whether it is new.

        :param key: a client's own name for this order, which a day long finds the same job, however that ended.
        :raises ReusedKeyError: when the key came with another order before.
        :raises QueueFullError, TooManyJobsError: when a new one would be beyond a limit.
        """
        ...

    def get(self, job: str) -> Job | None:
        """A job; None where there is none, or it ended long ago."""
        ...

    def jobs(
        self, tenant: str, state: State | None = None, kind: Kind | None = None, after: int = 0, limit: int = 50
    ) -> tuple[list[Job], int]:
        """A tenant's jobs, the newest first, and the ``after`` of the next page; 0 where there is none."""
        ...

    def dead(self, limit: int = 50) -> list[Job]:
        """Those whose attempts are used up, of all tenants, the last first."""
        ...

    def backlog(self) -> Backlog:
        """How many jobs wait, run and are dead, of all tenants, and how long the first has waited."""
        ...

    def cancel(self, job: str) -> Job | None:
        """End a job: at once where it waits, by its worker where it runs. One that has ended stays as it is."""
        ...

    def events(self, job: str, after: str = "", limit: int = 500, wait: float = 0.0) -> list[Event]:
        """What was said of a job after a cursor, from the beginning where that is empty.

        Only the newest of much is kept. In the place of what is gone is a line of the log that says so.

        :param wait: seconds to wait for something where there is nothing yet; it may be less.
        """
        ...

    def news(self, after: Mapping[str, str], limit: int = 500, wait: float = 0.0) -> dict[str, list[Event]]:
        """What was said of several jobs after a cursor each; those of which nothing was are left out.

        :param wait: seconds to wait for something of any of them, as for :meth:`events`.
        """
        ...

    def latest(self, job: str, limit: int) -> list[Event]:
        """The last that was said of a job, oldest first."""
        ...

    def take(self, worker: str) -> Lease | None:
        """The job that has waited longest, now this worker's; None where none is due. Jobs whose lease is over are queued again first."""
        ...

    def tell(self, lease: Lease, number: int, events: Sequence[Mapping[str, Any]] = ()) -> Word:
        """Say what goes on, which renews the lease; what is said for the second time, or without a lease, is left out.

        :param number: counts from 1 within the lease; the same one again is a repetition.
        """
        ...

    def end(self, lease: Lease, outcome: Outcome) -> bool:
        """Say how it ended; False where the lease was lost, and nothing changed."""
        ...

    def hold(self, what: str, token: str, seconds: float) -> bool:
        """Get or keep something that only one may have, such as a GPU."""
        ...

    def release(self, what: str, token: str) -> None:
        """Let go of it."""
        ...
