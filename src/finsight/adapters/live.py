"""A training's progress, live, for whoever follows the command (finsight.events)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from finsight.events import followed, say
from finsight.pipeline.tracking import Tracked

if TYPE_CHECKING:
    from finsight.modeling.training import Progress

EVERY = 0.5  # seconds between two steps that are told


class Live:
    """An observer: each epoch's metrics, and the step at most twice a second."""

    def __init__(self) -> None:
        self._said = 0.0

    def __call__(self, progress: Progress) -> None:
        """Tell it."""
        at = {"epoch": progress.epoch, "epochs": progress.epochs}
        now = time.monotonic()
        if progress.metrics or now - self._said >= EVERY:
            self._said = now
            say("progress", run=progress.name or "train", **at, step=progress.step, steps=progress.steps, loss=progress.loss)
        if progress.metrics:
            say("metrics", run=progress.name or "train", **at, metrics=progress.metrics)


class TrackedLive(Tracked):
    """A run that is followed in the tracker and live."""

    _live: Live | None = None

    def __call__(self, progress: Progress) -> None:
        """Tell both."""
        if followed():
            self._live = self._live or Live()
            self._live(progress)
        super().__call__(progress)
