"""Long work in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

from tqdm import tqdm

from finsight.modeling.training import Progress


@contextmanager
def row_bars() -> Iterator[Callable[[str, int], None]]:
    """A bar for each kind of work on rows, shown once it has taken a second: ``progress("tokenised", 65536)``."""
    with ExitStack() as bars:
        shown: dict[str, tqdm[Any]] = {}

        def progress(what: str, rows: int) -> None:
            if what not in shown:
                shown[what] = bars.enter_context(tqdm(unit=" rows", desc=what, delay=1, dynamic_ncols=True))
            shown[what].update(rows)

        yield progress


class ProgressBar:
    """An observer: one bar for the run, with rate and time left, and a line an epoch. It shows with the first step."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __call__(self, progress: Progress) -> None:
        """Move the bar."""
        bar = self._bar
        if bar is None:
            bar = self._bar = tqdm(total=progress.steps, unit="step", desc="train", dynamic_ncols=True)
        bar.set_postfix(epoch=f"{progress.epoch}/{progress.epochs}", loss=f"{progress.loss:.3f}", refresh=False)
        bar.update(progress.step - bar.n)
        if m := progress.metrics:
            bar.write(
                f"epoch {progress.epoch}/{progress.epochs}: train loss {m['train_loss']:.3f}, validation loss {m['validation_loss']:.3f}, "
                f"accuracy {m['validation_accuracy']:.3f}, macro-F1 {m['validation_macro_f1']:.3f}"
            )

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
