"""Long work in the terminal, and in a file that others follow."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, Self

from tqdm import tqdm

if TYPE_CHECKING:
    from finsight.modeling.training import Progress

# Seconds between two drawings: a log keeps each, a terminal the last.
EVERY = 0.1 if sys.stderr.isatty() else 10.0


class RowProgress(Protocol):
    """What is done with how many more rows, of how many in all where that is known."""

    def __call__(self, what: str, rows: int, total: int | None = None) -> None:
        """Move the bar of ``what``."""


@contextmanager
def row_bars() -> Iterator[RowProgress]:
    """A bar for each kind of work on rows, shown once it has taken a second: ``progress("tokenised", 65536)``."""
    with ExitStack() as bars:
        shown: dict[str, tqdm[Any]] = {}

        def progress(what: str, rows: int, total: int | None = None) -> None:
            if what not in shown:
                for done in shown.values():
                    done.close()  # two open bars draw over each other where the output is no terminal
                shown[what] = bars.enter_context(tqdm(total=total, unit=" rows", desc=what, delay=1, dynamic_ncols=True, mininterval=EVERY))
            shown[what].update(rows)

        yield progress


class ProgressBar:
    """An observer: one bar for a run, with rate and time left, and a line an epoch. It shows with the first step."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._name = ""

    def __enter__(self) -> Self:
        return self

    def __call__(self, progress: Progress) -> None:
        """Move the bar."""
        bar = self._bar
        if bar is None or self._name != progress.name:
            self.__exit__()
            # A run that goes on begins where it was stopped: what was done before must not count for the rate.
            first = progress.step - 1 if progress.step < progress.steps else 0
            shown: dict[str, Any] = {"unit": "step", "desc": progress.name or "train", "dynamic_ncols": True, "mininterval": EVERY}
            bar = self._bar = tqdm(total=progress.steps, initial=first, **shown)
            self._name = progress.name
        bar.total = progress.steps  # of a stream an estimate, which gets better
        bar.set_postfix(epoch=f"{progress.epoch}/{progress.epochs}", loss=f"{progress.loss:.3f}", refresh=False)
        bar.update(progress.step - bar.n)
        if m := progress.metrics:
            measured = ""
            if "validation_loss" in m:  # an adaptation reads no validation rows
                measured = (
                    f", validation loss {m['validation_loss']:.3f}, accuracy {m['validation_accuracy']:.3f}, "
                    f"macro-F1 {m['validation_macro_f1']:.3f}"
                )
            bar.write(f"{self._name or 'train'}, epoch {progress.epoch}/{progress.epochs}: train loss {m['train_loss']:.3f}{measured}")

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


class JsonLines:
    """An observer that appends each report as a line of JSON, for whoever follows the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __call__(self, progress: Progress) -> None:
        """Write a line."""
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("w", encoding="utf-8")
        said = {
            "run": progress.name or "train",
            "epoch": progress.epoch,
            "step": progress.step,
            "steps": progress.steps,
            "loss": progress.loss,
        }
        self._file.write(json.dumps({**said, **progress.metrics}) + "\n")
        self._file.flush()

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


class StatusLine:
    """One line below all others that says what is under way; threads may share it."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] = tqdm(bar_format="{desc} [{elapsed}]", dynamic_ncols=True, mininterval=EVERY)
        self._at: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def say(self, line: str) -> None:
        """Print a line above it."""
        self._bar.write(line)

    def at(self, name: str, where: str) -> None:
        """Something has come so far; it is no more under way where that is empty."""
        if where:
            self._at[name] = where
        else:
            self._at.pop(name, None)
        shown = [f"{name} {where}" for name, where in self._at.items()]
        self._bar.set_description_str(f"{len(shown)} running: {', '.join(shown[:4])}{', …' if len(shown) > 4 else ''}", refresh=False)
        self._bar.update(1)
