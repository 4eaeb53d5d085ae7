"""Experiments of DVC's at once, each in a copy of its own."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finsight.adapters import dvc, git
from finsight.adapters.experiment_copies import ExperimentCopy
from finsight.adapters.job_process import JobProcess, plain_environment
from finsight.errors import FinsightError, StoppedError

ATTEMPTS = 3  # at an experiment that breaks, by a kill or an outside system; one that says what is wrong is not tried again
GRACE = 30.0  # seconds from being asked to end, in which a training saves its state, until it is killed
TICK = 0.1
COPIES = Path(".dvc/tmp/finsight-sweep")


@dataclass(frozen=True, slots=True)
class Variant:
    """One experiment of a sweep: its overrides, as ``-S`` takes them, and its name, which follows from them and the commit."""

    name: str
    overrides: tuple[str, ...]


def variants(overrides: Sequence[str], targets: Sequence[str], revision: str, prefix: str) -> list[Variant]:
    """An experiment for each combination of values.

    :raises ParamsError: when an override is none.
    """
    found = []
    for chosen in dict.fromkeys(dvc.combinations(overrides)):  # a value that is named twice is one
        digest = hashlib.sha256(json.dumps([revision, chosen, list(targets)]).encode()).hexdigest()
        found.append(Variant(f"{prefix}-{digest[:7]}", chosen))
    return found


@dataclass
class _Run:
    """An attempt at an experiment."""

    variant: Variant
    attempt: int
    gpu: str
    copy: ExperimentCopy
    process: JobProcess
    stage: str = ""
    error: dict[str, Any] = field(default_factory=dict)
    last_line: str = ""

    def hear(self) -> None:
        """Take note of what it has said."""
        for event in self.process.said():
            match event["type"]:
                case "stage":
                    self.stage = event["stage"]
                case "error":
                    self.error = event
                case "log" if not event["line"].startswith("ERROR: failed to reproduce"):
                    self.last_line = event["line"]

    def why(self, code: int) -> str:
        """How it failed."""
        return str(self.error.get("error") or f"ended with {code}: {self.last_line or 'it said nothing'}")


@dataclass
class Sweep:
    """Experiments that are run at once.

    :param revision: commit that they begin with.
    :param targets: stages to run up to; all where there are none.
    :param slots: a GPU for each that may run at once; empty names where there are none.
    :param threads: of the CPU for each, where train.threads says nothing.
    :param say: is told what ends, and how.
    :param at: is told how far each is; that it is no more under way by an empty word.
    """

    root: Path
    revision: str
    targets: Sequence[str]
    slots: Sequence[str]
    threads: int
    say: Callable[[str], None]
    at: Callable[[str, str], None]
    stop: Callable[[], bool]

    def run(self, wanted: Sequence[Variant], ended: Callable[[Variant], None]) -> dict[str, str]:
        """Run those that are not recorded yet; the names of those that failed, each with its reason.

        :param ended: is told of each that is recorded.
        :raises StoppedError: when it was stopped; the same sweep goes on from there.
        """
        waiting = deque((variant, 1) for variant in wanted if not git.experiment(self.root, variant.name))
        free, running, failed = deque(self.slots), list[_Run](), dict[str, str]()
        shutil.rmtree(self.root / COPIES, ignore_errors=True)  # of a sweep that was killed
        with tempfile.TemporaryDirectory(prefix="finsight-sweep-") as folder:
            try:
                while (waiting or running) and not self.stop():
                    while waiting and free:
                        running.append(self._started(*waiting.popleft(), free.popleft(), Path(folder)))
                    for run in list(running):
                        if (code := self._looked_at(run)) is None:
                            continue
                        running.remove(run)
                        free.append(run.gpu)
                        recorded = code == 0 and run.copy.brought()
                        self._clear(run)
                        if recorded:
                            ended(run.variant)
                        elif run.attempt < ATTEMPTS and run.error.get("passing", True):
                            self.say(f"warning: {run.variant.name}: {run.why(code)}; it is tried again")
                            waiting.append((run.variant, run.attempt + 1))
                        else:
                            failed[run.variant.name] = run.why(code)
                            self.say(f"{run.variant.name}: failed: {failed[run.variant.name]}")
                    time.sleep(TICK)
            finally:
                self._end(running)
        if waiting or running:
            raise StoppedError("the sweep was stopped; the same command goes on from there")
        return failed

    def _started(self, variant: Variant, attempt: int, gpu: str, folder: Path) -> _Run:
        copy = ExperimentCopy(self.root, self.root / COPIES / variant.name, variant.name)
        command = copy.command(self.revision, variant.overrides, self.targets)
        own = Path(tempfile.mkdtemp(dir=folder))
        environment = plain_environment(OMP_NUM_THREADS=str(self.threads), **({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}))
        process = JobProcess(command, self.root, environment, own, silence=0)
        self.at(variant.name, "starts")
        return _Run(variant, attempt, gpu, copy, process)

    def _looked_at(self, run: _Run) -> int | None:
        """Its exit code, once it has ended."""
        code = run.process.poll()
        run.hear()
        self.at(run.variant.name, run.stage or "starts")
        return code

    def _end(self, running: Sequence[_Run]) -> None:
        """End what is under way; a training keeps its state."""
        for run in running:
            run.process.ask_to_end()
        deadline = time.monotonic() + GRACE
        for run in running:
            while run.process.poll() is None and time.monotonic() < deadline:
                run.hear()
                time.sleep(TICK)
            self._clear(run)

    def _clear(self, run: _Run) -> None:
        run.process.close()
        run.copy.clear()
        self.at(run.variant.name, "")


def values(overrides: Sequence[str]) -> str:
    """Overrides in words."""
    return ", ".join(override.replace("=", " ", 1) for override in overrides)


def metrics(root: Path, name: str, report: str) -> dict[str, float]:
    """The numbers of a report of an experiment; none where it has none.

    :raises FinsightError: when there is no such experiment.
    """
    commit = git.experiment(root, name)
    if commit is None:
        raise FinsightError(f"{name}: no such experiment; `dvc exp show` lists them")
    content = json.loads(git.show(root, commit, f"./{report}") or "{}")
    return {key: value for key, value in content.items() if isinstance(value, (int, float)) and not isinstance(value, bool)}
