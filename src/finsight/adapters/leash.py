"""Run a command that can't outlive whoever started it: ``python leash.py SECONDS COMMAND …``, with a pipe as standard input.

When the pipe closes, because its owner let go or was killed, or is silent for so many seconds (0: may be silent for ever), because the
owner hangs, the command is killed with all that it has started, in whatever process group or session that is. So is what the command
leaves behind when it ends. The exit code is the command's.

A SIGKILL reaches one process: a worker that gets it can't end its job, and the job's own children would go on beside the job's next
attempt. Hence a process between, which is the new parent of every orphan below it (Linux; elsewhere the process group is killed).
It is run as a file, since only the standard library is needed: it starts in 20 ms.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_POLL = 0.05  # seconds


def main(silence: float, command: Sequence[str]) -> int:
    """Run it; its exit code, as a shell's where a signal ended it."""
    adopt_orphans()

    def tied() -> None:
        if _LIBC:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # should this process itself be killed

    owner = sys.stdin.fileno()
    # Descriptors that this process was handed on purpose, such as a lock, are the command's to keep.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, close_fds=False, preexec_fn=tied)

    def pass_on(number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    try:
        heard = time.monotonic()
        while child.poll() is None and not (silence and time.monotonic() - heard > silence):
            if select.select([owner], [], [], _POLL)[0]:
                if not os.read(owner, 4096):
                    break
                heard = time.monotonic()
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        kill_below()
    code = child.wait()
    return code if code >= 0 else 128 - code


def adopt_orphans() -> None:
    """Become the new parent of every orphan below this process, which would else be out of sight."""
    if _LIBC:
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_below(spared: Collection[int] = ()) -> None:
    """Kill every process below this one, until there is none but those spared, and what is below them."""
    while below := _below(os.getpid(), spared):
        for process in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.005)


def _below(root: int, spared: Collection[int]) -> list[int]:
    """The living descendants of a process; none where there is no /proc."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            # After the name, which may hold anything: state, parent.
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state != "Z" and int(stat.parent.name) not in spared:
                parents.setdefault(int(parent), []).append(int(stat.parent.name))
    found, level = [], [root]
    while level:
        level = [child for parent in level for child in parents.get(parent, [])]
        found += level
    return found


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
