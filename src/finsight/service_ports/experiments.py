"""DVC's experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


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
