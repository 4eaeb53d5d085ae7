"""A worker's sign of life: a file that it touches, so that whoever keeps it running needs no network to look.

Redis would be the wrong place: with Redis away every worker would look dead, and be started anew for nothing.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from finsight.errors import FinsightError

EVERY = 1.0  # seconds between two touches
LOST = 60.0  # seconds of silence: a worker that waits for Redis, or for git, is silent for up to ten


@contextmanager
def beating(folder: Path, stop: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
    """``stop``, which a worker asks at every turn of its loop, as a sign of life.

    The file is locked for as long as its worker lives, however it ends: what a killed one leaves behind is nobody's.

    :raises FinsightError: when another worker has the same name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, last = folder / f"{socket.gethostname()}-{os.getpid()}", -EVERY

    with path.open("w") as file:
        _lock(file)

        def asked() -> bool:
            nonlocal last
            if (now := time.monotonic()) - last >= EVERY:
                with suppress(OSError):  # a full disk ends no job
                    os.utime(file.fileno())
                last = now
            return stop()

        try:
            yield asked
        finally:
            path.unlink(missing_ok=True)


def _lock(file: IO[str]) -> None:
    """Whoever looks holds it for a moment; a worker of another container with the same hostname and number, for good."""
    for _ in range(20):
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(0.05)
    raise FinsightError(f"{file.name}: a worker of this name runs over this clone already; give each container a hostname of its own")


def silences(folder: Path) -> dict[str, float]:
    """The workers of this host that a folder knows and that live, with the seconds since each one's last sign."""
    found = {}
    here = (path for path in sorted(folder.glob("*")) if path.name.rpartition("-")[0] == socket.gethostname())  # and not HOST-2-PID
    for path in here:
        with suppress(FileNotFoundError), path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                found[path.name] = max(0.0, time.time() - os.fstat(file.fileno()).st_mtime)
    return found


def alive(folder: Path) -> list[str]:
    """The workers of this host, all of them well.

    :raises FinsightError: when there is none, or one hangs.
    """
    found = silences(folder)
    if not found:
        raise FinsightError(f"{folder}: no worker of this host runs over this clone; start one with `finsight worker`")
    if hanging := [name for name, seconds in found.items() if seconds > LOST]:
        raise FinsightError(
            f"{', '.join(hanging)}: no sign of life for {max(found.values()):.0f} s; end it, and its job goes to another worker"
        )
    return list(found)
