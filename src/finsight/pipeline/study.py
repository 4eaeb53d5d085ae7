"""The trials of a search and where they are kept: Optuna, with a file of SQLite's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from finsight.errors import ArtifactError
from finsight.files import full_disk_is_oserror
from finsight.params.tune import Choices, Values

if TYPE_CHECKING:
    import optuna


def open_study(database: Path, name: str) -> optuna.Study:
    """The study of this name in an SQLite file; trials that were under way when it was last left are to be done again.

    :raises ArtifactError: when the file is something else.
    """
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


def ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that count: what was killed has left one that failed without a reason."""
    counts = {"COMPLETE", "PRUNED"}
    return [trial for trial in study.get_trials() if trial.state.name in counts or "reason" in trial.user_attrs]


def suggest(trial: optuna.Trial, name: str, values: Values) -> Any:
    """A value for a key."""
    if isinstance(values, Choices):
        return trial.suggest_categorical(name, values.choices)
    if isinstance(values.low, int) and isinstance(values.high, int):
        return trial.suggest_int(name, values.low, values.high, log=values.log)
    return trial.suggest_float(name, values.low, values.high, log=values.log)


def told(trial: optuna.trial.FrozenTrial) -> str:
    """What came of a trial, in words."""
    values = ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in trial.params.items())
    outcome = f"macro-F1 {trial.values[0]:.4f}" if trial.values else trial.user_attrs.get("reason", "ended early")
    return f"{outcome} with {values}"
