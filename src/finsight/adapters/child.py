"""A server that runs as long as the command that started it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

PATIENCE = 10.0  # seconds from being asked to end until it is ended
POLL = 0.2
_ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run_child(command: Sequence[str | os.PathLike[str]], environment: Mapping[str, str]) -> int:
    """Run a program until it ends, or until Ctrl-C, SIGTERM or a closed terminal ends it with all the processes that it has started.

    :return: its exit code; 0 where it was told to end.
    """
    told: list[int] = []
    before = {number: signal.signal(number, lambda number, _: told.append(number)) for number in _ENDINGS}
    try:
        # A session of its own: a terminal's Ctrl-C comes here alone, and a server's workers are reached together.
        child = subprocess.Popen(command, env=environment, start_new_session=True)
        try:
            while not told:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return child.wait(POLL)
            _signal_all(child, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(PATIENCE)
            return 0
        finally:
            _signal_all(child, signal.SIGKILL)
            child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal_all(child: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)
