"""What workers of a pool do in tests; a module of its own, for they import it in their own processes."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finsight.errors import DataError

Found = tuple[int, int, int]
"""An item squared, the process, and how often it was made ready."""


def make(folder: Path, seconds: float = 0.05) -> Callable[[int], Found]:
    """Squares numbers, and leaves a file ``made-PID`` for each time that a process was made ready.

    A number below 0 is an error. 99 kills its process, once.
    """
    with (folder / f"made-{os.getpid()}").open("a") as file:
        file.write("made\n")

    def work(item: int) -> Found:
        time.sleep(seconds)
        if item < 0:
            raise DataError(f"{item}: is below 0; give another")
        if item == 99 and not (folder / "killed").exists():
            (folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return item * item, os.getpid(), len((folder / f"made-{os.getpid()}").read_text().splitlines())

    return work


def gpu() -> Callable[[int], str]:
    """Tells the GPUs that its process may use."""

    def work(_: int) -> str:
        time.sleep(0.5)
        return os.environ["CUDA_VISIBLE_DEVICES"]

    return work


def not_ready() -> Callable[[int], Found]:
    raise DataError("bundle: no such folder; name another")


def killed_once(make: Callable[[], Callable[[Any], Any]], folder: Path) -> Callable[[Any], Any]:
    """What ``make`` returns, but that the third item of each kind of work kills its process, once."""
    work = make()

    def one(item: Any) -> Any:
        mark = folder / f"killed-{make.func.__name__}"
        if item.number == 2 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return work(item)

    return one


def killed_always(make: Callable[[], Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """A function that kills its process."""
    make()
    return lambda item: os.kill(os.getpid(), signal.SIGKILL)
