"""What a search leaves in the tracker, without depending on it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from finsight.errors import UnreachableError

if TYPE_CHECKING:
    from finsight.ports import ExperimentTracker


class SearchLog:
    """One run of the tracker for the study, and a nested one for each trial; nothing where it does not answer. Threads may share it."""

    def __init__(self, open_tracker: Callable[[], ExperimentTracker], say: Callable[[str], None]) -> None:
        self._say = say
        self._lock = threading.Lock()
        self._tracker: ExperimentTracker | None = None
        self._parent = ""
        self._tried(lambda: self._begin(open_tracker()))

    def _begin(self, tracker: ExperimentTracker) -> None:
        self._parent = tracker.start("tune", {})
        self._tracker = tracker

    def _tried(self, work: Callable[[], Any]) -> Any:
        with self._lock:
            try:
                return work()
            except UnreachableError as error:
                self._tracker = None
                self._say(f"warning: {error}; the search goes on, its trials are kept in the study")
                return None

    def start(self, number: int, settings: Mapping[str, Any]) -> str:
        """Open the run of a trial; empty where there is none."""
        tracker = self._tracker
        params = {f"train.{name}": str(value) for name, value in settings.items()}
        return self._tried(lambda: tracker.start(f"trial {number}", params, parent=self._parent)) or "" if tracker else ""

    def metrics(self, run: str, metrics: Mapping[str, float], step: int) -> None:
        """Add an epoch."""
        if (tracker := self._tracker) and run:
            self._tried(lambda: tracker.log_metrics(run, metrics, step))

    def end(self, run: str, why: str, tags: Mapping[str, str]) -> None:
        """Close the run of a trial.

        :param why: it ended before its time: ``pruned``, ``failed`` or ``stopped``; empty where it did not.
        """
        if (tracker := self._tracker) and run:
            about = {**tags, **({"finsight.trial": why} if why else {})}
            self._tried(lambda: tracker.finish(run, about, failed=why in ("failed", "stopped")))

    def best(self, number: int, value: float) -> None:
        """Say which trial is the best one."""
        if tracker := self._tracker:
            self._tried(lambda: tracker.log_metrics(self._parent, {"best_validation_macro_f1": value, "best_trial": number}))

    def close(self) -> None:
        """Close the run of the study."""
        if (tracker := self._tracker) and self._parent:
            self._tried(lambda: tracker.finish(self._parent, {}))
