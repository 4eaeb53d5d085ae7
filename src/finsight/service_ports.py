"""What the service asks of the outside world. Adapters stand in finsight.adapters; bootstrap chooses among them.

Every method raises :class:`finsight.errors.UnreachableError` when what it asks does not answer, but those of caches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from finsight.domain.access import Principal
from finsight.domain.audit import Entry, Record
from finsight.domain.jobs import Event, Job, Kind, Limits, Order, State
from finsight.domain.keys import ApiKey
from finsight.domain.sign_in import Attempt
from finsight.errors import FinsightError, ParamsError


class KeyStore(Protocol):
    """Keeps API keys, and for 30 days those that have ended."""

    def add(self, key: ApiKey) -> None:
        """Keep a new key."""
        ...

    def get(self, id_: str) -> ApiKey | None:
        """The key of an id, whether it is good or not; None where there is none."""
        ...

    def page(self, tenant: str, before: str | None, limit: int) -> list[ApiKey]:
        """At most ``limit`` keys of a tenant, the newest first, from the one after ``before`` on."""
        ...

    def change(self, id_: str, how: Callable[[ApiKey], ApiKey]) -> ApiKey | None:
        """Put what ``how`` makes of a key in its place, in one step; what stands there then. ``how`` may be called again."""
        ...

    def used(self, key: ApiKey, now: float) -> None:
        """Note when a key was presented, in seconds since 1970; at most once a minute."""
        ...


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 key of the service's own tokens.

    :param name: the ``kid`` of its tokens.
    :param private: 32 bytes.
    """

    name: str
    private: bytes


class SigningKeys(Protocol):
    """Keeps the keys that tokens are signed with; a new one is made when the present one has aged."""

    def current(self) -> SigningKey:
        """The key to sign with now.

        :raises ArtifactError: when it can't be decrypted.
        """
        ...

    def public(self, name: str) -> bytes | None:
        """The 32 bytes of a public key, for as long as a token of its may be good; None where there is none of that name."""
        ...


class Tickets(Protocol):
    """Keeps what stands for somebody once, for seconds."""

    def put(self, ticket: str, principal: Principal, seconds: int) -> None:
        """Let a ticket stand for somebody."""
        ...

    def take(self, ticket: str) -> Principal | None:
        """Whom a ticket stands for, once; None where it was taken, has expired, or never was."""
        ...


class FailedAttempts(Protocol):
    """Counts credentials that were none, by the address that they came from."""

    def wait(self, address: str) -> float:
        """Seconds until the address may try again; 0 where it may now."""
        ...

    def add(self, address: str) -> None:
        """Count one."""
        ...


class TokenIssuer(Protocol):
    """Knows who presents a bearer token of an issuer outside."""

    def principal(self, token: str) -> Principal | None:
        """Who presents it; None where it is not good here."""
        ...


class AuditLog(Protocol):
    """Keeps what was done and refused, one record after the other; nothing in it is changed or removed."""

    def append(self, entry: Entry) -> Record:
        """Add a record at the end of the chain. Of several processes that do so at the same time each gets a place of its own."""
        ...

    def check(self) -> None:
        """Find out whether a record could be appended now.

        :raises UnreachableError: when it could not.
        """
        ...

    def latest(self, before: int | None, limit: int) -> list[Record]:
        """The newest records, newest first.

        :param before: only those with smaller numbers.
        """
        ...

    def records(self) -> Iterator[Record]:
        """Every record, oldest first."""
        ...

    def written(self) -> int:
        """The number of the last record that was ever written, also where it is gone since."""
        ...


@dataclass(frozen=True, slots=True)
class Standing:
    """How a credential stands to its limit after a request.

    :param amount: requests that it has in a window.
    :param left: those that remain.
    :param seconds: until there is room for more.
    """

    allowed: bool
    amount: int
    left: int
    seconds: int


class Windows(Protocol):
    """Counts requests over sliding windows."""

    def hit(self, who: str, action: str) -> Standing:
        """Count one request, unless there is no room for it.

        :raises UnreachableError: when the counts are kept elsewhere, and can't be reached.
        """
        ...

    def at_once(self, who: str, action: str) -> Standing | None:
        """The same where nobody has to be asked for it; None, and nothing is counted, otherwise."""
        ...


class ResultCache(Protocol):
    """Keeps what was computed, for a while and within bounds: an entry may be gone at any time. Threads may share it.

    It never raises: a cache that is away has nothing, and the work is done without it.
    """

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """The value of each key in their order; None where there is none."""
        ...

    def put(self, entries: Mapping[str, bytes]) -> None:
        """Keep these, or some of them."""
        ...


class ArtifactStore(Protocol):
    """Keeps inputs and results of scorings, each tenant's apart, for a while and within bounds: one may be gone at any time.

    Names are those of :mod:`finsight.domain.artifacts`; another is a ValueError.
    """

    def put(self, tenant: str, name: str, source: Path) -> None:
        """Take in a file, which stays where it is; what is too old or too much by then goes.

        :raises OSError: when there is no room.
        """
        ...

    def size(self, tenant: str, name: str) -> int | None:
        """Its bytes; None where there is none."""
        ...

    def read(self, tenant: str, name: str) -> Iterator[bytes]:
        """Its content, some of it at a time.

        :raises DataError: when there is none.
        """
        ...


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
    """

    job: Job
    token: int
    seconds: float


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

    def cancel(self, job: str) -> Job | None:
        """End a job: at once where it waits, by its worker where it runs. One that has ended stays as it is."""
        ...

    def events(self, job: str, after: str = "", limit: int = 500, wait: float = 0.0) -> list[Event]:
        """What was said of a job after a cursor, from the beginning where that is empty.

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


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment of DVC's.

    :param commit: of git, that keeps it.
    :param baseline: the commit that it was started from.
    :param created: in ISO 8601, UTC.
    """

    name: str
    commit: str
    baseline: str
    created: str

    @property
    def order(self) -> tuple[str, str, str]:
        """What experiments are sorted by; no two have the same."""
        return self.created, self.name, self.baseline


@dataclass(frozen=True, slots=True)
class Tried:
    """What went into an experiment, and what came of it, by dotted keys; empty where it has no such file."""

    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)


class ExperimentLog(Protocol):
    """Knows the experiments of a clone."""

    def all(self) -> list[Experiment]:
        """Every experiment, falling by ``order``: newest first."""
        ...

    def outcomes(self, experiments: Sequence[Experiment]) -> list[Tried]:
        """The outcome of each, in their order."""
        ...


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who has signed in to the page.

    :param csrf: what each form of theirs carries, so that no other site can send one in their name.
    """

    principal: Principal
    csrf: str


class Sessions(Protocol):
    """Keeps who has signed in.

    Every method raises :class:`finsight.errors.UnreachableError` when the store does not answer.
    """

    def begin(self, principal: Principal) -> str:
        """Begin a session; its id, which is a secret."""
        ...

    def find(self, secret: str) -> Session | None:
        """The session of an id; None where there is none, or it is over."""
        ...

    def end(self, secret: str) -> None:
        """End a session, if there is one."""
        ...


class Attempts(Protocol):
    """Keeps sign-ins at an issuer that have begun, each for the one browser that has its secret."""

    def put(self, secret: str, attempt: Attempt, seconds: int) -> None:
        """Keep one."""
        ...

    def take(self, secret: str) -> Attempt | None:
        """The one of a secret, once; None where it was taken, is too old, or never was."""
        ...


class NotSignedInError(FinsightError):
    """An issuer, or what it said, leaves it open who somebody is."""


class SignInIssuer(Protocol):
    """An issuer that lets people sign in, and says who they are."""

    def address(self, attempt: Attempt) -> str:
        """Where the browser goes to begin."""
        ...

    def principal(self, code: str, attempt: Attempt) -> Principal:
        """Who came back with a code.

        :raises NotSignedInError: when the issuer does not take the code, or what it gives for it is not good here.
        """
        ...
