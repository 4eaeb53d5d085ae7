"""Tune: many trainings, each from what the ones before have taught, chosen on validation."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from finsight.errors import ArtifactError, FinsightError, ParamsError, StoppedError
from finsight.files import folder_digest
from finsight.modeling.training import Observer, Progress
from finsight.params.train import TrainParams
from finsight.params.tune import Choices, TuneParams
from finsight.pipeline.fitting import key
from finsight.pipeline.study import ended, open_study, suggest, told
from finsight.pipeline.tune_log import SearchLog

if TYPE_CHECKING:
    import optuna

    from finsight.ports import Backbone, ExperimentTracker

MEASURE = "validation_macro_f1"


@dataclass(frozen=True, slots=True)
class Trial:
    """One training of a search.

    :param folder: that it may use until it has ended.
    :param observers: what they raise ends it.
    :param stop: whether to keep its state and end.
    """

    number: int
    recipe: TrainParams
    folder: Path
    observers: Sequence[Observer]
    stop: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Best:
    """The best of all trials: its number, its validation macro-F1, and the values that differ from params.yaml."""

    number: int
    value: float
    changes: dict[str, Any]

    def options(self) -> str:
        """What `dvc exp run` is to be told."""
        return " ".join(f"-S 'train.{name}={'null' if value is None else value}'" for name, value in self.changes.items())


def tune(
    prepared: Path,
    labels: Sequence[str],
    params: TrainParams,
    search: TuneParams,
    backbone: Backbone,
    database: Path,
    train: Callable[[Trial], dict[str, Any]],
    open_tracker: Callable[[], ExperimentTracker],
    say: Callable[[str], None],
    stop: Callable[[], bool] = lambda: False,
    workers: int = 1,
    threads: int | None = None,
) -> Best:
    """Search until there are ``search.trials`` trials, and return the best of them.

    The study is kept in ``database`` under a digest of what it depends on: a search that was killed goes on, the trials that were under
    way are done again, and one with more trials builds on it. A trial that does worse than the median of the others after the same epoch
    is ended. Each is a nested run of one run in the tracker, whose outage is said once.

    :param train: runs one trial and returns what it measured; called by as many threads at once as there are ``workers``. This process
        alone asks and tells the study and the tracker, so that no two processes ever wait for a lock of theirs.
    :param threads: of the CPU for each trial, where that is not what ``params`` says; recorded, since results depend on it.
    :raises ParamsError: when ``search.space`` names what is no key of ``train``, or a value that it can't have.
    :raises StoppedError: when ``stop`` says so.
    """
    _check(params, search)
    study = open_study(database, key(folder_digest(prepared), backbone.digest, params.model_dump_json(), search.space, list(labels)))
    log = SearchLog(open_tracker, say)
    try:
        _Search(study, params, search, train, log, say, stop, threads).run(workers)
        done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
        if not done:
            raise ArtifactError(f"{database}: no trial has ended well; run `finsight tune` again, it goes on from there")
        best = study.best_trial
        log.best(best.number, best.values[0])
    finally:
        log.close()
    used = best.user_attrs.get("threads", params.threads)
    # The training that the proposal starts is to come out as the trial did.
    counted = {"threads": used} if params.determinism == "strict" and used != params.threads else {}
    return Best(best.number, best.values[0], counted | best.params)


@dataclass
class _Search:
    """Threads that each take the next trial until there are enough."""

    study: optuna.Study
    params: TrainParams
    search: TuneParams
    train: Callable[[Trial], dict[str, Any]]
    log: SearchLog
    say: Callable[[str], None]
    stop: Callable[[], bool]
    threads: int | None
    lock: threading.RLock = field(default_factory=threading.RLock)
    running: int = 0
    broken: bool = False

    def run(self, workers: int) -> None:
        """Search; with one worker in this thread.

        :raises StoppedError: when it was stopped; or what a trial could not be done for.
        """
        if workers == 1:
            self._work()
            return
        with ThreadPoolExecutor(workers) as pool:
            errors = [error for one in [pool.submit(self._work) for _ in range(workers)] if (error := one.exception())]
        for error in sorted(errors, key=lambda error: isinstance(error, StoppedError)):  # what made the others stop is what is told
            raise error

    def _work(self) -> None:
        whole = False
        try:
            while taken := self._next():
                self._one(*taken)
            whole = True
        finally:
            self.broken = self.broken or not whole

    def _halted(self) -> bool:
        return self.broken or self.stop()

    def _next(self) -> tuple[optuna.Trial, dict[str, Any]] | None:
        with self.lock:
            if self._halted() or len(ended(self.study)) + self.running >= self.search.trials:
                return None
            trial = self.study.ask()
            changes = {name: suggest(trial, name, values) for name, values in self.search.space.items()}
            if self.threads and "threads" not in changes:
                trial.set_user_attr("threads", self.threads)
            self.running += 1
            return trial, changes

    def _one(self, trial: optuna.Trial, changes: dict[str, Any]) -> None:
        from optuna import TrialPruned
        from optuna.trial import TrialState

        used = ({"threads": self.threads} if self.threads else {}) | changes
        run = self.log.start(trial.number, used)
        seen: set[int] = set()

        def follow(progress: Progress) -> None:
            # A trial whose process was killed may tell an epoch again.
            if progress.metrics and not progress.name and progress.epoch not in seen:
                seen.add(progress.epoch)
                self.log.metrics(run, progress.metrics, progress.epoch)
                with self.lock:
                    trial.report(progress.metrics[MEASURE], progress.epoch)
                    if trial.should_prune():
                        raise TrialPruned

        gpu = reason = ""
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = self.train(Trial(trial.number, _with(self.params, used), Path(folder), [follow], self._halted))
            except TrialPruned:
                state, value, why = TrialState.PRUNED, None, "pruned"
            except ParamsError as error:  # a rate that makes the loss infinite is an answer, too
                state, value, why, reason = TrialState.FAIL, None, "failed", str(error)
            except FinsightError:
                self.log.end(run, "stopped", {})
                raise
            else:
                state, value, why, gpu = TrialState.COMPLETE, found[MEASURE], "", found.get("gpu", "")
        self.log.end(run, why, {"finsight.gpu": gpu} if gpu else {})
        with self.lock:
            for name, said in {"gpu": gpu, "reason": reason}.items():
                if said:
                    trial.set_user_attr(name, said)
            self.study.tell(trial, value, state=state)
            self.running -= 1
            self.say(f"trial {len(ended(self.study))} of {self.search.trials}: {told(self.study.trials[trial.number])}")


def _check(params: TrainParams, search: TuneParams) -> None:
    if params.launch.processes * params.launch.nodes > 1:
        raise ParamsError("params.yaml: train.launch: `finsight tune` trains in one process; set processes and nodes to 1")
    others = {"backbone", "teacher", "launch", "distillation", "prune", "adapt", "stream", "seed", "save_every"}
    allowed = sorted(TrainParams.model_fields.keys() - others)
    for name, values in search.space.items():
        if name not in allowed:
            raise ParamsError(f"params.yaml: tune.space.{name}: no key of train that can be searched; allowed: {', '.join(allowed)}")
        for value in values.choices if isinstance(values, Choices) else (values.low, values.high):
            try:
                _with(params, {name: value})
            except ParamsError as error:
                raise ParamsError(f"params.yaml: tune.space.{name}: {value!r} is no value of train.{name}: {error}") from None


def _with(params: TrainParams, changes: Mapping[str, Any]) -> TrainParams:
    try:
        return TrainParams.model_validate(params.model_dump() | dict(changes))
    except ValidationError as invalid:
        raise ParamsError(invalid.errors()[0]["msg"].removeprefix("Value error, ")) from None
