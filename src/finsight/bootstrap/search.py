"""What `finsight tune` works with: one training after the other here, or several at once in processes of their own."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finsight.bootstrap.pipeline import backbone, load_params, teacher, tracker
from finsight.environment import cores
from finsight.errors import ParamsError
from finsight.params.file import Params

if TYPE_CHECKING:
    from finsight.adapters.progress import StatusLine
    from finsight.modeling.training import Observer, Progress
    from finsight.pipeline.tune import Best, Trial
    from finsight.ports import Backbone


def tune(prepared: Path, study: Path, trials: int | None, stop: Callable[[], bool], workers: int = 1) -> Best:
    """Search for better parameters of ``train``, and say how it goes.

    :param workers: trials at once.
    :raises ParamsError: when there are fewer GPUs than workers, or another search is at work on the study.
    """
    from finsight.adapters.progress import StatusLine
    from finsight.pipeline.tune import tune

    params = load_params()
    search = params.tune if trials is None else params.tune.model_copy(update={"trials": trials})
    found, master = backbone(params), teacher(params)
    gpus = shared_gpus(params.train.device, workers)
    with ExitStack() as stack:
        stack.enter_context(alone(study, "tune", "name another --study"))
        given = (prepared, params.labels, params.train, search, found, study)
        if workers == 1:
            return tune(*given, lambda trial: _here(trial, prepared, params, found, master), lambda: tracker(params), click.echo, stop)
        threads = share_of_cores(workers, params.train.threads)
        bar = stack.enter_context(StatusLine())
        train = stack.enter_context(_several(params, prepared, workers, threads, gpus, bar))
        return tune(*given, train, lambda: tracker(params), bar.say, stop, workers, threads)


def _here(trial: Trial, prepared: Path, params: Params, backbone: Backbone, master: Backbone | None) -> dict[str, Any]:
    """A trial in this process, with a bar of its own."""
    from finsight.adapters.live import Live
    from finsight.adapters.progress import ProgressBar
    from finsight.bootstrap.trial import trained

    with ProgressBar() as bar:
        observers: list[Observer] = [bar, Live(), *trial.observers]
        return trained(params, prepared, trial.recipe, trial.folder, backbone, master, observers, trial.stop)


def shared_gpus(device: str, workers: int) -> list[str]:
    """A GPU for each worker; none where there are none, or none are wanted.

    :raises ParamsError: when there are some, but fewer than workers.
    """
    from finsight.adapters.gpus import gpus

    found = gpus() if device != "cpu" else []
    if found and workers > len(found):
        raise ParamsError(
            f"--workers: got {workers}, and there are {len(found)} GPUs here, of which each has one to itself; "
            f"give {len(found)} at most, or set train.device to cpu"
        )
    return found[:workers]


def share_of_cores(workers: int, wanted: int) -> int:
    """Threads of the CPU for each worker: its share of the cores, and no more than are wanted (0: any number)."""
    share = max(1, cores() // workers)
    return min(share, wanted) if wanted else share


@contextmanager
def alone(place: Path, command: str, otherwise: str) -> Iterator[None]:
    """Let no other such command work at a place: it would take what is under way for what a killed one has left.

    :param otherwise: what to do but to wait for it.
    :raises ParamsError: when one is at work there.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_name(f"{place.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ParamsError(f"{place}: another `finsight {command}` is at work there; wait for it, or {otherwise}") from None
        yield


@contextmanager
def _several(
    params: Params, prepared: Path, workers: int, threads: int, gpus: Sequence[str], bar: StatusLine
) -> Iterator[Callable[[Trial], dict[str, Any]]]:
    """Trials in processes of their own, followed on one bar."""
    from finsight.adapters.live import Live
    from finsight.adapters.trial_processes import trial_processes
    from finsight.bootstrap.trial import setup

    def warn(line: str) -> None:
        bar.say(f"warning: {line}")

    with trial_processes("finsight.bootstrap.trial", setup(params, prepared), workers, threads, gpus, warn) as processes:

        def train(trial: Trial) -> dict[str, Any]:
            live = Live()

            def follow(progress: Progress) -> None:
                bar.at(f"trial {trial.number}", f"epoch {progress.epoch}/{progress.epochs}")
                live(replace(progress, name=progress.name or f"trial {trial.number}"))

            try:
                return processes.train(replace(trial, observers=[follow, *trial.observers]))
            finally:
                bar.at(f"trial {trial.number}", "")

        yield train
