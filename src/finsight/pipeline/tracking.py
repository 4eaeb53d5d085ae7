"""Following a training run in a tracker, without depending on it."""

from __future__ import annotations

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


class Tracked:
    """An observer that logs each epoch. An outage never stops training: it is said once, and ``register`` rebuilds the run from
    the files."""

    def __init__(
        self, open_tracker: Callable[[], ExperimentTracker], name: str, params: Mapping[str, str], warn: Callable[[str], None]
    ) -> None:
        self._open, self._name, self._params, self._warn = open_tracker, name, params, warn
        self._tracker: ExperimentTracker | None = None
        self._run = self._checkpoint = ""

    def __enter__(self) -> Self:
        """Open the run."""
        with self._outage_tolerated():
            self._tracker = self._open()
            self._run = self._tracker.start(self._name, self._params)
        return self

    def __call__(self, progress: Progress) -> None:
        """Log an epoch; the steps between are not worth a request each."""
        if self._tracker and progress.metrics:
            with self._outage_tolerated():
                self._tracker.log_metrics(self._run, progress.metrics, progress.epoch)

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
            self._tracker = None
            self._warn(f"{error}; training goes on, and `dvc repro register` sends the run later")
