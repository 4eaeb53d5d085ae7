"""Following a training run in a tracker, without depending on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from finsight.errors import UnreachableError

if TYPE_CHECKING:
    from finsight.modeling.training import Progress
    from finsight.ports import ExperimentTracker

# Tags by which `register` finds what `train` left: the checkpoint's digest, the bundle's digest, and how far the run has come.
CHECKPOINT_TAG, BUNDLE_TAG, STATE_TAG = "finsight.checkpoint", "finsight.bundle", "finsight.state"
TRAINED, REGISTERED = "trained", "registered"
SECONDS = 5.0  # between two losses that are logged


class Tracked:
    """An observer that logs steps and epochs. An outage never stops training: it is said once, and ``register`` rebuilds the run
    from the files.

    The run is opened with the first thing to log: of several processes only one has any.
    """

    def __init__(
        self, open_tracker: Callable[[], ExperimentTracker], name: str, params: Mapping[str, str], warn: Callable[[str], None]
    ) -> None:
        self._open, self._name, self._params, self._warn = open_tracker, name, params, warn
        self._tracker: ExperimentTracker | None = None
        self._run = self._checkpoint = ""
        self._away = False
        self._logged = 0.0

    def __enter__(self) -> Self:
        return self

    def __call__(self, progress: Progress) -> None:
        """Log an epoch, or the loss at most every few seconds: a step is not worth a request."""
        if progress.name or self._away or not (progress.metrics or time.monotonic() - self._logged > SECONDS):
            return
        with self._outage_tolerated():
            if self._tracker is None:
                self._tracker = self._open()
                self._run = self._tracker.start(self._name, self._params, watched=True)
            if progress.metrics:
                self._tracker.log_metrics(self._run, progress.metrics, progress.epoch)
            else:
                self._tracker.log_metrics(self._run, {"loss": progress.loss}, progress.step)
            self._logged = time.monotonic()

    def made(self, checkpoint: str) -> None:
        """Say which checkpoint came of it; a run that ends without one has failed."""
        self._checkpoint = checkpoint

    def __exit__(self, *_: object) -> None:
        """Close the run; only one that has everything gets the tags by which it is found."""
        if self._tracker:
            tags = {CHECKPOINT_TAG: self._checkpoint, STATE_TAG: TRAINED} if self._checkpoint else {}
            with self._outage_tolerated():
                self._tracker.finish(self._run, tags, failed=not self._checkpoint)

    @contextmanager
    def _outage_tolerated(self) -> Iterator[None]:
        try:
            yield
        except UnreachableError as error:
            self._tracker, self._away = None, True
            self._warn(f"{error}; training goes on, and `dvc repro register` sends the run later")
