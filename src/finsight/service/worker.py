"""A worker: takes jobs one at a time, runs each, and says how it goes."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finsight import tracing
from finsight.adapters.job_process import JobProcess
from finsight.adapters.jobs import Work
from finsight.command import describe
from finsight.domain.jobs import Job
from finsight.errors import FinsightError, UnreachableError
from finsight.service.worker_meters import WorkerMeters
from finsight.service_ports import Ending, JobQueue, Lease, Outcome, Word

POLL = 0.5  # seconds between two looks for a job
TICK = 0.1  # seconds between two looks at one that runs
GRACE = 5.0  # seconds from being asked to end until a job is killed
_FOR_GOOD = (Ending.FAILED, Ending.CANCELLED)
_BACK = Outcome(Ending.GIVEN_BACK, "its worker was stopped")


@dataclass
class Worker:
    """Runs jobs of a queue.

    :param work: what a job's work is here; a FinsightError says why there is none.
    :param gpus: those of this machine. Where there are any, each job has one to itself.
    :param say: is told what a person at the terminal wants to know.
    """

    queue: JobQueue
    work: Callable[[Job], Work]
    gpus: Sequence[str] = ()
    say: Callable[[str], None] = lambda _: None
    name: str = field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}")
    meters: WorkerMeters = field(default_factory=WorkerMeters)

    def run(self, stop: Callable[[], bool]) -> None:
        """Work until ``stop`` says so. The job that runs then is given back, and goes on with another worker."""
        away = False
        while not stop():
            try:
                worked = self.once(stop)
                away = False
                self.meters.reached.set(1)
            except UnreachableError as error:
                worked = False
                self.meters.reached.set(0)
                if not away:
                    self.say(f"warning: {error}; waiting for it")
                away = True
            if not worked:
                time.sleep(POLL)

    def once(self, stop: Callable[[], bool]) -> bool:
        """Run one job; whether there was one.

        :raises UnreachableError: when the queue does not answer.
        """
        with self._gpu() as gpu:
            if gpu is None:
                return False
            asked = time.monotonic()
            lease = self.queue.take(self.name)
            self.meters.reached.set(1)  # now, and not once the job has ended
            if lease is None:
                return False
            self._do(lease, gpu, asked, stop)
            return True

    def _do(self, lease: Lease, gpu: str, asked: float, stop: Callable[[], bool]) -> None:
        """An attempt at a job, as part of the trace that ordered it."""
        job = lease.job
        about: tracing.Attributes = {"messaging.system": "redis", "finsight.job": job.id, "finsight.attempt": job.attempt}
        with tracing.continued(job.order.origin, f"job {job.order.kind}", "consumer", about) as span:
            self.say(f"{job.order.kind} {job.id}, attempt {job.attempt}")
            self.meters.began(job)
            attempt = Attempt(self.queue, lease, gpu, self.name, asked, stop)
            outcome = attempt.made(self.work)
            if outcome and not attempt.ended(outcome):
                outcome = None
            self.meters.ended(job, outcome, time.monotonic() - asked)
            ending = str(outcome.ending) if outcome else "lost to another worker"
            self.say(f"{job.id}: {ending}")
            if span:
                span.set_attribute("finsight.ending", ending)
                if outcome and outcome.ending in (Ending.FAILED, Ending.BROKEN):
                    tracing.failed(FinsightError(outcome.error))

    @contextmanager
    def _gpu(self) -> Iterator[str | None]:
        """A GPU that no other job has; empty where the machine has none, None where all are in use."""
        held = next((gpu for gpu in self.gpus if self.queue.hold(gpu, self.name, POLL * 60)), None) if self.gpus else ""
        try:
            yield held
        finally:
            if held:
                self.queue.release(held, self.name)


@dataclass
class Attempt:
    """One run of a job.

    :param heard: when the queue was last asked what it then answered; the lease counts from there.
    """

    queue: JobQueue
    lease: Lease
    gpu: str
    worker: str
    heard: float
    stop: Callable[[], bool]
    number: int = 1
    batch: list[dict[str, Any]] = field(default_factory=list)
    error: Mapping[str, Any] = field(default_factory=dict)
    last_line: str = ""

    def made(self, find: Callable[[Job], Work]) -> Outcome | None:
        """Run it to its end; None where the lease was lost."""
        work: Work | None = None
        try:
            work = find(self.lease.job)
            outcome = self._worked(work)
        except FinsightError as error:
            passing = isinstance(error, UnreachableError)
            outcome = Outcome(Ending.BROKEN if passing else Ending.FAILED, describe(error))
        except OSError as error:  # a full disk, no more processes
            outcome = Outcome(Ending.BROKEN, describe(error))
        if work and outcome and (outcome.ending in _FOR_GOOD or (self.lease.last and outcome.ending is Ending.BROKEN)):
            work.given_up()  # before the queue hears of it: from then on the same order may be at work there again
        return outcome

    def _worked(self, work: Work) -> Outcome | None:
        until = time.monotonic() + work.seconds
        try:
            with tempfile.TemporaryDirectory(prefix="finsight-job-") as folder:
                for command in work.commands:
                    outcome = self._run(command, work, Path(folder), until)
                    if outcome is None or outcome.ending != Ending.SUCCEEDED:
                        return outcome
            return work.found()
        finally:
            work.cleared()

    def _run(self, command: Sequence[str], work: Work, folder: Path, until: float) -> Outcome | None:
        process, ending = self._started(command, work, folder, until)
        if process is None:
            return ending
        why, kill_at = None, float("inf")
        try:
            while True:
                code = process.poll()
                word = self._tell(process)
                now = time.monotonic()
                if word is Word.LOST:
                    return None
                if why is None and code is None and (why := self._reason(word, now, until, work.seconds)):
                    process.ask_to_end()
                    kill_at = now + GRACE
                if now > kill_at:
                    process.kill()
                if code is not None and not self.batch:
                    return why or self._judged(code)
                time.sleep(TICK)
        finally:
            process.close()

    def _started(self, command: Sequence[str], work: Work, folder: Path, until: float) -> tuple[JobProcess | None, Outcome | None]:
        """The process; or how the attempt ended before. The queue is asked first: the job may be another's by now."""
        environment = {**work.environment, **tracing.environment(), **({"CUDA_VISIBLE_DEVICES": self.gpu} if self.gpu else {})}
        word = self._renewed()
        if word is Word.LOST:
            return None, None
        if why := self._reason(word, time.monotonic(), until, work.seconds):
            return None, why
        return JobProcess(command, work.cwd, environment, Path(tempfile.mkdtemp(dir=folder)), self.lease.seconds / 2), None

    def _renewed(self, events: Sequence[dict[str, Any]] = ()) -> Word:
        """Say what is new; the lease of the job and the hold on its GPU last from here on."""
        now, seconds = time.monotonic(), self.lease.seconds
        word = self.queue.tell(self.lease, self.number, events)
        # Longer than the lease, since that call may take a third of it, and another third went by before it.
        if self.gpu and not self.queue.hold(self.gpu, self.worker, seconds * 1.5):
            word = Word.LOST
        self.number, self.heard = self.number + 1, now
        return word

    def _tell(self, process: JobProcess) -> Word:
        """Say what is new, and what could not be said before; the word of the queue."""
        if not self.batch:
            self.batch = process.said()
            for event in self.batch:
                self.error = event if event["type"] == "error" else self.error
                self.last_line = event["line"] if event["type"] == "log" else self.last_line
        now, seconds = time.monotonic(), self.lease.seconds
        word = Word.GO_ON
        if self.batch or now - self.heard > seconds / 6:
            process.renew()  # before the queue answers, which may take a while: should this worker hang then, its job ends before its lease
            try:
                word = self._renewed(self.batch)
                self.batch = []
            except UnreachableError:
                # A call takes up to a third of the lease: so what runs here has ended before it runs elsewhere.
                word = Word.LOST if time.monotonic() - self.heard > seconds / 2 else Word.GO_ON
        return word

    def _reason(self, word: Word, now: float, until: float, seconds: float) -> Outcome | None:
        """Why it has to end before its time."""
        if word is Word.CANCEL:
            return Outcome(Ending.CANCELLED)
        if now > until:
            return Outcome(Ending.FAILED, f"it took longer than its {seconds:g} s")
        return _BACK if self.stop() else None

    def _judged(self, code: int) -> Outcome:
        if code == 0:
            return Outcome(Ending.SUCCEEDED)
        said = str(self.error.get("error") or self.last_line or "it said nothing")
        can_help = self.error.get("passing", True)
        return Outcome(Ending.BROKEN if can_help else Ending.FAILED, said if self.error else f"ended with {code}: {said}")

    def ended(self, outcome: Outcome) -> bool:
        """Say how it ended; False where it is another's by now."""
        while True:
            try:
                return self.queue.end(self.lease, outcome)
            except UnreachableError:
                if time.monotonic() - self.heard > self.lease.seconds:
                    return False
                time.sleep(POLL)
