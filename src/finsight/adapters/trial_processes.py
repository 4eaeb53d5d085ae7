"""Trials of a search in processes of their own: as many at once as there are workers, each with its share of the machine.

Parent and child speak in lines of JSON. A child reads a recipe, tells each epoch and waits to hear whether to go on, and answers with
what it measured; it ends when its standard input does, so that none outlives a parent that is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from finsight import errors
from finsight.errors import FinsightError, ParamsError, StoppedError
from finsight.modeling.training import Progress
from finsight.pipeline.tune import Trial

ATTEMPTS = 3  # at a trial whose process dies: then it is the trial that kills it
GRACE = 30.0  # seconds from being told to stop, in which a state is saved, until a process is killed
_TICK = 0.2


class _DiedError(Exception):
    """A process has ended in the middle of a trial."""


@dataclass
class TrialProcess:
    """A process that trains one trial after another; it is started with the first, and again after it has died.

    :param module: run with ``-m``; :mod:`finsight.bootstrap.trial` but for tests.
    :param setup: the first line that it reads.
    :param gpu: the one that it has to itself; empty where there is none.
    :param threads: of the CPU, for libraries that are not told otherwise.
    """

    module: str
    setup: str
    gpu: str
    threads: int
    process: subprocess.Popen[bytes] | None = None
    said: IO[bytes] | None = None
    rest: bytes = b""
    lines: list[bytes] = field(default_factory=list)

    def train(self, trial: Trial) -> dict[str, Any]:
        """Run one trial.

        :raises _DiedError: when the process ends before it has answered.
        :raises FinsightError: the one that it answers with.
        """
        if self.process is None:
            self._start()
        self._say(trial=trial.recipe.model_dump_json(), folder=str(trial.folder))
        deadline = float("inf")
        while True:
            message = self._heard()
            if trial.stop() and deadline == float("inf"):
                self._say(stop=True)
                deadline = time.monotonic() + GRACE
            if message is None:
                if time.monotonic() > deadline:
                    self.close()
                    raise StoppedError(
                        f"trial {trial.number} did not end within {GRACE:g} s and was killed; the same command does it again"
                    )
            elif "progress" in message:
                self._followed(trial, Progress(**message["progress"]))
            elif "error" in message:
                raise getattr(errors, message["error"], FinsightError)(message["said"])
            else:
                return {**message["found"], "gpu": self.gpu}

    def close(self) -> None:
        """End the process, now."""
        if self.process:
            self.process.kill()
            self.process.communicate()
        if self.said:
            self.said.close()
        self.process, self.said, self.rest, self.lines = None, None, b"", []

    def _start(self) -> None:
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        own = {"OMP_NUM_THREADS": str(self.threads), **({"CUDA_VISIBLE_DEVICES": self.gpu} if self.gpu else {})}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", self.module],
            env={**os.environ, **own},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            start_new_session=True,  # a terminal's Ctrl-C is the parent's to pass on
        )
        self._write(self.setup)

    def _followed(self, trial: Trial, progress: Progress) -> None:
        """Tell the observers; a process whose trial they end hears of it, and is ready for the next."""
        try:
            for observe in trial.observers:
                observe(progress)
        except BaseException:
            self._say(end=True)
            try:
                while (message := self._heard()) is None or "progress" in message:
                    pass
            except _DiedError:
                self.close()
            raise
        if progress.metrics:
            self._say(go=True)

    def _say(self, **content: Any) -> None:
        self._write(json.dumps(content))

    def _write(self, line: str) -> None:
        if self.process is None or self.process.stdin is None:
            raise _DiedError
        with contextlib.suppress(BrokenPipeError):  # it has died, which is seen when it is listened to
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()

    def _heard(self) -> dict[str, Any] | None:
        """The next message; None where there has been none for a moment."""
        if self.process is None or self.process.stdout is None:
            raise _DiedError
        if not self.lines:
            file = self.process.stdout.fileno()
            if not select.select([file], [], [], _TICK)[0]:
                return None
            block = os.read(file, 1 << 16)
            if not block:
                raise _DiedError(self._why())
            *self.lines, self.rest = (self.rest + block).split(b"\n")
            if not self.lines:
                return None
        message: dict[str, Any] = json.loads(self.lines.pop(0))
        return message

    def _why(self) -> str:
        """How it ended."""
        code = self.process.wait() if self.process else 0
        if code == -signal.SIGKILL:
            return "was killed (SIGKILL), as by a machine whose memory is full"
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        last = ""
        if self.said:
            self.said.seek(0)
            last = next(iter(self.said.read().decode(errors="replace").strip().splitlines()[::-1]), "")
        return f"ended with {code}: {last}" if last else f"ended with {code}"


@dataclass
class TrialProcesses:
    """Processes that trials are given to; :meth:`train` may be called by several threads.

    :param gpus: those of this machine, of which each process has one to itself; as many as there are workers, or none.
    :param warn: is told of a process that died.
    """

    module: str
    setup: str
    workers: int
    threads: int
    gpus: Sequence[str]
    warn: Callable[[str], None]

    def __post_init__(self) -> None:
        self._free: queue.SimpleQueue[TrialProcess] = queue.SimpleQueue()
        self._all = [TrialProcess(self.module, self.setup, gpu, self.threads) for gpu in (self.gpus or [""] * self.workers)]
        for process in self._all[: self.workers]:
            self._free.put(process)

    def train(self, trial: Trial) -> dict[str, Any]:
        """Run a trial in a process that has no other; again, from its last state, where that dies.

        :raises ParamsError: when it died each time.
        :raises FinsightError: what the training itself raises.
        """
        process = self._free.get()
        try:
            why = ""
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    return process.train(trial)
                except _DiedError as died:
                    why = str(died)
                    process.close()
                    if trial.stop():
                        raise StoppedError(f"trial {trial.number} was stopped; the same command does it again") from None
                    if attempt < ATTEMPTS:
                        self.warn(f"trial {trial.number}: its process {why}; it is done again")
            raise ParamsError(
                f"its process {why}, {ATTEMPTS} times; with fewer --workers, or a smaller train.batch_tokens, each has more memory"
            )
        finally:
            self._free.put(process)

    def close(self) -> None:
        """End all processes."""
        for process in self._all:
            process.close()


@contextlib.contextmanager
def trial_processes(
    module: str, setup: str, workers: int, threads: int, gpus: Sequence[str], warn: Callable[[str], None]
) -> Iterator[TrialProcesses]:
    """Processes that end with the block."""
    processes = TrialProcesses(module, setup, workers, threads, gpus, warn)
    try:
        yield processes
    finally:
        processes.close()
