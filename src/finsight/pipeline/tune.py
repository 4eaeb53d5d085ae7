"""Tune: many trainings, each from what the ones before have taught, chosen on validation."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from finsight.errors import ArtifactError, ParamsError, UnreachableError
from finsight.files import folder_digest, full_disk_is_oserror
from finsight.modeling.training import Progress
from finsight.params.train import TrainParams
from finsight.params.tune import Choices, TuneParams
from finsight.pipeline.fitting import key

if TYPE_CHECKING:
    import optuna

    from finsight.ports import Backbone, ExperimentTracker

MEASURE = "validation_macro_f1"


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
    train: Callable[[TrainParams, Path, Sequence[Callable[[Progress], None]]], dict[str, Any]],
    open_tracker: Callable[[], ExperimentTracker],
    say: Callable[[str], None],
    stop: Callable[[], bool] = lambda: False,
) -> Best:
    """Search until there are ``search.trials`` trials, and return the best of them.

    The study is kept in ``database`` under a digest of what it depends on: a search that was killed goes on, the trial that was under
    way is done again, and one with more trials builds on it. A trial that does worse than the median of the others after the same epoch is
    ended. Each is a nested run of one run in the tracker, whose outage is said once.

    :param train: runs one training with these parameters and observers, with results in a folder that it may use.
    :raises ParamsError: when ``search.space`` names what is no key of ``train``, or a value that it can't have.
    """
    _check(params, search)
    study = _open(database, key(folder_digest(prepared), backbone.digest, params.model_dump_json(), search.space, list(labels)))
    log = _Log(open_tracker, say)
    while len(_ended(study)) < search.trials and not stop():
        trial = study.ask()
        changes = {name: _suggest(trial, name, values) for name, values in search.space.items()}
        _one(study, trial, params, changes, train, log)
        if not stop():
            say(f"trial {len(_ended(study))} of {search.trials}: {_told(study.trials[trial.number])}")
    done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    if not done:
        raise ArtifactError(f"{database}: no trial has ended well; run `finsight tune` again, it goes on from there")
    best = study.best_trial
    log.finish(best.number, best.values[0])
    return Best(best.number, best.values[0], dict(best.params))


def _one(
    study: optuna.Study,
    trial: optuna.Trial,
    params: TrainParams,
    changes: Mapping[str, Any],
    train: Callable[..., dict[str, Any]],
    log: _Log,
) -> None:
    from optuna import TrialPruned
    from optuna.trial import TrialState

    run = log.start(trial.number, changes)

    def follow(progress: Progress) -> None:
        if progress.metrics and not progress.name:
            log.metrics(run, progress.metrics, progress.epoch)
            trial.report(progress.metrics[MEASURE], progress.epoch)
            if trial.should_prune():
                raise TrialPruned

    with tempfile.TemporaryDirectory() as folder:
        try:
            found = train(_with(params, changes), Path(folder), [follow])
        except TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
            log.end(run, "pruned")
        except ParamsError as error:  # a rate that makes the loss infinite is an answer, too
            trial.set_user_attr("reason", str(error))
            study.tell(trial, state=TrialState.FAIL)
            log.end(run, "failed")
        else:
            study.tell(trial, found[MEASURE])
            log.end(run, "")


def _check(params: TrainParams, search: TuneParams) -> None:
    if params.launch.processes * params.launch.nodes > 1:
        raise ParamsError("params.yaml: train.launch: `finsight tune` trains in one process; set processes and nodes to 1")
    allowed = sorted(TrainParams.model_fields.keys() - {"backbone", "teacher", "launch", "distillation", "prune", "seed", "save_every"})
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


def _open(database: Path, name: str) -> optuna.Study:
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    database.parent.mkdir(parents=True, exist_ok=True)
    try:
        with full_disk_is_oserror():
            study = optuna.create_study(
                storage=f"sqlite:///{database}",
                study_name=name,
                load_if_exists=True,
                direction="maximize",
                pruner=optuna.pruners.MedianPruner(n_startup_trials=3),
            )
            # A search that goes on must not draw again what it has drawn.
            study.sampler = optuna.samplers.TPESampler(seed=len(study.trials), n_startup_trials=5)
    except SQLAlchemyError as error:
        raise ArtifactError(f"{database}: holds no study: {' '.join(str(error).split())[:200]}; remove it, or name another") from None
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):  # it was killed
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return study


def _ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that count: what was killed has left one that failed without a reason."""
    counts = {"COMPLETE", "PRUNED"}
    return [trial for trial in study.get_trials() if trial.state.name in counts or "reason" in trial.user_attrs]


def _suggest(trial: optuna.Trial, name: str, values: Any) -> Any:
    if isinstance(values, Choices):
        return trial.suggest_categorical(name, values.choices)
    if isinstance(values.low, int) and isinstance(values.high, int):
        return trial.suggest_int(name, values.low, values.high, log=values.log)
    return trial.suggest_float(name, values.low, values.high, log=values.log)


def _told(trial: optuna.trial.FrozenTrial) -> str:
    values = ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in trial.params.items())
    outcome = f"macro-F1 {trial.values[0]:.4f}" if trial.values else trial.user_attrs.get("reason", "ended early")
    return f"{outcome} with {values}"


class _Log:
    """One run of the tracker for the study, and a nested one for each trial; nothing where it does not answer."""

    def __init__(self, open_tracker: Callable[[], ExperimentTracker], say: Callable[[str], None]) -> None:
        self._say = say
        self._tracker: ExperimentTracker | None = None
        self._parent = ""
        self._tried(lambda: self._begin(open_tracker()))

    def _begin(self, tracker: ExperimentTracker) -> None:
        self._parent = tracker.start("tune", {})
        self._tracker = tracker

    def _tried(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except UnreachableError as error:
            self._tracker = None
            self._say(f"warning: {error}; the search goes on, its trials are kept in the study")
            return None

    def start(self, number: int, changes: Mapping[str, Any]) -> str:
        tracker = self._tracker
        settings = {f"train.{name}": str(value) for name, value in changes.items()}
        return self._tried(lambda: tracker.start(f"trial {number}", settings, parent=self._parent)) or "" if tracker else ""

    def metrics(self, run: str, metrics: Mapping[str, float], step: int) -> None:
        if tracker := self._tracker:
            self._tried(lambda: tracker.log_metrics(run, metrics, step))

    def end(self, run: str, why: str) -> None:
        if tracker := self._tracker:
            self._tried(lambda: tracker.finish(run, {"finsight.trial": why} if why else {}, failed=why == "failed"))

    def finish(self, number: int, value: float) -> None:
        if tracker := self._tracker:
            self._tried(lambda: tracker.log_metrics(self._parent, {"best_validation_macro_f1": value, "best_trial": number}))
            self._tried(lambda: tracker.finish(self._parent, {}))
