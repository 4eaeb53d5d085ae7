"""A job's command as a process that can't outlive its worker, and what it says."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from finsight.adapters import leash
from finsight.events import VARIABLE

LONGEST_LINE = 4_000  # characters
_WAITING = 5_000  # lines that nobody has fetched; then the command has to wait
_BATCH, _BATCH_SIZE = 1_000, 1 << 18  # lines and characters that are fetched at once: with that a command that never stops is slowed down
_STAGE = re.compile(r"(?:Running stage|Stage) '([^']+)'")  # what DVC prints
# The service's own: no job needs its secrets, nor goes by its name.
_SECRETS = tuple(f"FINSIGHT_{name}{file}" for name in ("API_KEY", "OIDC_CLIENT_SECRET", "REDIS_URL") for file in ("", "_FILE"))
_OWN = (*_SECRETS, "OTEL_SERVICE_NAME")
_LEASHES: set[int] = set()  # of the commands that run now
_UNPRINTABLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


class JobProcess:
    """A running command.

    :param folder: of its own, for what it says of itself.
    :param silence: seconds from one :meth:`renew` to the next after which it is killed, whatever its worker does by then.
    """

    def __init__(self, command: Sequence[str], cwd: Path, environment: Mapping[str, str], folder: Path, silence: float) -> None:
        self._told = folder / "events.jsonl"
        self._told.touch()
        self._read = 0
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue(_WAITING)
        leash.adopt_orphans()
        # In a session of its own: a terminal's Ctrl-C is the worker's to pass on.
        self._process = subprocess.Popen(
            [sys.executable, leash.__file__, str(silence), *command],
            cwd=cwd,
            env={**environment, VARIABLE: str(self._told), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        _LEASHES.add(self._process.pid)
        self._reader = threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def poll(self) -> int | None:
        """The exit code, once it has ended and all that it wrote is there to be fetched."""
        code = self._process.poll()
        if code is not None and code < 0:
            # The leash itself was killed, by a machine that had no memory left; what is on others is not touched.
            leash.kill_below(_LEASHES - {self._process.pid})
        return None if self._reader.is_alive() or not self._lines.empty() else code

    def said(self) -> list[dict[str, Any]]:
        """What it said since the last call: log lines, stages, and what finsight.events wrote."""
        found, size = self._events(), 0
        with contextlib.suppress(queue.Empty):
            while len(found) < _BATCH and size < _BATCH_SIZE:
                found.append(self._lines.get_nowait())
                size += len(found[-1].get("line", ""))
        return found

    def renew(self) -> None:
        """Let it go on."""
        if self._process.stdin and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):  # it has ended
                os.write(self._process.stdin.fileno(), b".")

    def ask_to_end(self) -> None:
        """As Ctrl-C does: a training keeps its state."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it with all that it has started, now."""
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()
        _LEASHES.discard(self._process.pid)

    def close(self) -> None:
        """Leave nothing behind."""
        self.kill()
        while self._reader.is_alive():  # it waits where there is much that nobody fetched
            self.said()
            self._reader.join(0.01)
        if self._process.stdout:
            self._process.stdout.close()

    def _events(self) -> list[dict[str, Any]]:
        with self._told.open("rb") as file:
            file.seek(self._read)
            whole = file.read(1 << 20).rpartition(b"\n")[0]
        self._read += len(whole) + 1 if whole else 0
        found = []
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and "type" in event:
                    found.append(event)
        return found

    def _listen(self, output: IO[bytes]) -> None:
        rest = b""
        with contextlib.suppress(ValueError, OSError):  # closed
            while block := os.read(output.fileno(), 1 << 16):
                *lines, rest = re.split(rb"[\r\n]+", rest + block)
                if len(rest) > LONGEST_LINE:
                    lines, rest = [*lines, rest], b""
                for line in lines:
                    self._heard(line)
        self._heard(rest)

    def _heard(self, line: bytes) -> None:
        text = _UNPRINTABLE.sub("", line.decode("utf-8", "replace")).rstrip()[:LONGEST_LINE]
        if not text:
            return
        self._lines.put({"type": "log", "line": text})
        if stage := _STAGE.match(text):
            self._lines.put({"type": "stage", "stage": stage[1]})


def plain_environment(**more: str) -> dict[str, str]:
    """The worker's environment without what is the service's own."""
    kept = {name: value for name, value in os.environ.items() if name not in _OWN}
    return {**kept, "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")]), **more}
