"""Jobs: what is asked for, how far it has come, what is said of it on the way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What a job does. All but the last two are a DVC experiment up to the stage of that name."""

    VALIDATE = "validate"
    TRAIN = "train"
    EVALUATE = "evaluate"
    EXPORT = "export"
    REGISTER = "register"
    TUNE = "tune"
    SCORE = "score"


class State(StrEnum):
    """Where a job is: it failed where trying again can't help, and is dead where all its attempts are used up."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self not in (State.QUEUED, State.RUNNING)


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for.

    :param parameters: dotted keys of params.yaml; of a scoring ``input`` and ``text``.
    :param revision: the commit that it is to run at.
    :param inputs: what else shapes the result → its digest.
    :param origin: what was being done when it was asked for (see :func:`finsight.tracing.origin`); it shapes nothing.
    """

    kind: Kind
    parameters: Mapping[str, Any]
    tenant: str
    owner: str
    revision: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """A digest of all that shapes the result; a tenant's own, so that none learns what another has asked for."""
        parts = [self.tenant, self.kind, self.parameters, self.revision, self.inputs]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Job:
    """An order and how far it has come.

    :param attempt: counts from 1 with the first run; 0 before.
    :param created: seconds since 1970, as are ``started`` (of the last attempt) and ``ended``.
    :param progress: share of the stage that is done, 0 to 1.
    :param metrics: what was measured last.
    :param error: one line.
    """

    id: str
    order: Order
    state: State
    attempt: int
    created: float
    started: float | None = None
    ended: float | None = None
    stage: str = ""
    progress: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    experiment: str = ""
    result: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was said of a job: ``content["type"]`` is ``state``, ``stage``, ``progress``, ``metrics`` or ``log``.

    :param cursor: its place; those of a job rise, and whoever asks for what comes after one misses nothing and gets nothing twice.
    """

    cursor: str
    content: Mapping[str, Any]

    @property
    def end(self) -> str:
        """The state in which the job has ended, where this says so; nothing comes after it."""
        state = self.content["state"] if self.content["type"] == "state" else ""
        return state if state and State(state).ended else ""


def place(cursor: str) -> tuple[int, int]:
    """What cursors are compared by; that of the beginning, which is empty, comes first."""
    first, _, second = cursor.partition("-")
    return int(first or 0), int(second or 0)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may wait and run.

    :param waiting: queued jobs of all tenants.
    :param active: queued and running jobs of one tenant.
    """

    waiting: int = 1000
    active: int = 50
