"""What the service asks of the outside world beside :mod:`finsight.ports`, which the stages of the pipeline depend on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from finsight.domain.access import Principal


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
class Outcome:
    """What went into an experiment, and what came of it, by dotted keys; empty where it has no such file."""

    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)


class ExperimentLog(Protocol):
    """Knows the experiments of a clone."""

    def all(self) -> list[Experiment]:
        """Every experiment, falling by ``order``: newest first."""
        ...

    def outcomes(self, experiments: Sequence[Experiment]) -> list[Outcome]:
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
