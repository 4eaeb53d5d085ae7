"""`finsight tune` on a tiny model: searched, stopped, gone on with."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import optuna
import pytest

from conftest import Project
from trainings import with_gpus

SPACE = {"lr": {"low": 1.0e-4, "high": 1.0e-2, "log": True}, "epochs": {"choices": [1, 2]}}


@pytest.fixture(scope="module")
def ready(make_project: Callable[[str], Project]) -> Project:
    project = make_project("tune")
    project.set(tune__space=SPACE, tune__trials=4, train__batch_tokens=256)
    project.run("ingest", "validate", "prepare")
    return project


def command(project: Project, *options: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-m", "finsight.cli", "tune", *options]
    environment = {**os.environ, **project.env}
    return subprocess.Popen(arguments, cwd=project.root, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def tuned(project: Project, *options: str) -> tuple[list[str], str]:
    """The lines of the trials, and the command that it proposes."""
    with command(project, *options) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    lines = out.splitlines()
    return [line for line in lines if line.startswith("trial ")], lines[-1]


def study(project: Project) -> list[optuna.trial.FrozenTrial]:
    """The trials that are kept, each that counts."""
    storage = f"sqlite:///{project.root}/tune.db"
    (name,) = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=name, storage=storage).get_trials()
    return [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED") or "reason" in trial.user_attrs]


def children(process: int) -> list[int]:
    """The processes that train for a search."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == process and state != "Z" and b"finsight.bootstrap.trial" in stat.with_name("cmdline").read_bytes():
                found.append(int(stat.parent.name))
        except OSError:
            continue
    return found


def lives(process: int) -> bool:
    try:
        return b"finsight.bootstrap.trial" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


def until(true: Callable[[], object], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.05)


def runs(project: Project, name: str = "finsight") -> Sequence[object]:
    from mlflow import MlflowClient

    client = MlflowClient(project.env["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return client.search_runs([experiment.experiment_id])


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_search_that_is_stopped_goes_on_and_names_the_best(ready: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(ready)
    with command(project, "--trials", "6") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("trial 2 of 6"):
                process.send_signal(signal.SIGKILL)
                break
    trials, proposed = tuned(project)
    assert [line.split(":")[0] for line in trials] == ["trial 3 of 4", "trial 4 of 4"]
    assert re.fullmatch(r"dvc exp run( -S 'train\.(lr|epochs)=[\d.e-]+'){2}", proposed)
    again, same = tuned(project)
    assert (again, same) == ([], proposed)
    more, _ = tuned(project, "--trials", "5")
    assert [line.split(":")[0] for line in more] == ["trial 5 of 5"]
    nested = [run for run in runs(project) if "mlflow.parentRunId" in run.data.tags]  # type: ignore[attr-defined]
    assert len(nested) >= 5
    assert {"train.lr", "train.epochs"} == set(nested[0].data.params)  # type: ignore[attr-defined]
    assert all("validation_macro_f1" in run.data.metrics for run in nested if run.info.status == "FINISHED")  # type: ignore[attr-defined]


@pytest.mark.long
def test_sigterm_ends_a_search_with_one_line_and_the_trial_goes_on(ready: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(ready)
    project.set(tune__space={**SPACE, "epochs": {"choices": [200, 201]}})
    states = project.root / "cache/training"
    project.set(train__save_every=0.0)
    with command(project) as process:
        deadline = time.monotonic() + 60
        while not list(states.glob("state-*")):
            assert process.poll() is None
            assert time.monotonic() < deadline, "no step was seen"
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate()
    assert process.returncode == 1
    assert "error: training was stopped after step" in err


@pytest.mark.parametrize(
    ("space", "line"),
    [
        (
            {"rate": {"choices": [1, 2]}},
            r"error: params.yaml: tune.space.rate: no key of train that can be searched; allowed: ",
        ),
        (
            {"lr": {"low": -1.0, "high": 1.0, "log": False}},
            r"error: params.yaml: tune.space.lr: -1.0 is no value of train.lr: ",
        ),
        ({"lr": {"low": 2.0, "high": 1.0, "log": False}}, r"error: params.yaml: tune.space.lr: low is 2, expected less than high, 1"),
    ],
)
def test_a_space_that_cannot_be_is_refused(ready: Project, copy_of: Callable[[Project], Project], space: object, line: str) -> None:
    project = copy_of(ready)
    project.set(tune__space=space)
    with command(project) as process:
        _, err = process.communicate()
    assert process.returncode == 1
    assert re.match(line, err.strip().splitlines()[-1]), err


@pytest.mark.parametrize("options", [(), pytest.param(("--workers", "2"), marks=pytest.mark.long)])
def test_a_trial_that_breaks_is_counted_and_told(ready: Project, copy_of: Callable[[Project], Project], options: tuple[str, ...]) -> None:
    project = copy_of(ready)
    project.set(tune__space={"lr": {"choices": [1.0e30, 1.0e-3]}}, train__max_grad_norm=1.0e30)
    trials, proposed = tuned(project, *options)
    assert len(trials) == 4
    assert any("train.lr: 1e+30 makes the loss nan at step" in line for line in trials)
    assert proposed == "dvc exp run -S 'train.lr=0.001'"


def test_a_search_survives_a_tracker_that_is_away(ready: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(ready)
    project.env["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    with command(project, "--trials", "1") as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert "warning: MLflow at http://127.0.0.1:9: Connection refused" in out
    assert "dvc exp run -S" in out


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("live", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::optuna.exceptions.ExperimentalWarning")
def test_ten_at_once_all_end_and_all_are_recorded(
    ready: Project, copy_of: Callable[[Project], Project], live: bool, request: pytest.FixtureRequest
) -> None:
    project = copy_of(ready)
    if live:
        project.env["MLFLOW_TRACKING_URI"] = request.getfixturevalue("mlflow_server")
        project.set(register__experiment="ten-at-once")
    project.set(train__threads=2)
    said, proposed = tuned(project, "--trials", "10", "--workers", "10")
    assert sorted(line.split(":")[0] for line in said) == sorted(f"trial {number} of 10" for number in range(1, 11))
    trials = study(project)
    assert len(trials) == 10
    assert all(trial.state.name in ("COMPLETE", "PRUNED") for trial in trials)
    began, ended = max(trial.datetime_start for trial in trials), min(trial.datetime_complete for trial in trials)  # type: ignore[type-var]
    assert began < ended, "all were under way at once"
    # Each has its share of two cores, or of more where there are, and the result says so.
    share = max(1, len(os.sched_getaffinity(0)) // 10)
    assert {trial.user_attrs["threads"] for trial in trials} == {min(share, 2)}
    assert ("-S 'train.threads=1'" in proposed) == (share == 1)
    nested = [run for run in runs(project, "ten-at-once" if live else "finsight") if "mlflow.parentRunId" in run.data.tags]  # type: ignore[attr-defined]
    assert len(nested) == 10
    assert all(run.info.status == "FINISHED" and "validation_macro_f1" in run.data.metrics for run in nested)  # type: ignore[attr-defined]
    assert {float(run.data.params["train.lr"]) for run in nested} == {trial.params["lr"] for trial in trials}  # type: ignore[attr-defined]


@pytest.mark.long
def test_a_process_that_is_killed_costs_its_trial_alone_which_is_done_again(ready: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(ready)
    project.set(train__save_every=0.0, tune__space={**SPACE, "epochs": {"choices": [20, 21]}})
    with command(project, "--trials", "3", "--workers", "2") as process:
        until(lambda: list((project.root / "cache/training").glob("state-*")))
        os.kill(children(process.pid)[0], signal.SIGKILL)
        out, err = process.communicate()
    assert process.returncode == 0, err
    lines = out.splitlines()
    (warning,) = [line for line in lines if line.startswith("warning: ")]
    assert re.fullmatch(r"warning: trial \d: its process was killed \(SIGKILL\), as by .*; it is done again", warning)
    assert sum(line.startswith("trial ") for line in lines) == 3
    assert all(trial.state.name in ("COMPLETE", "PRUNED") for trial in study(project))


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_search_that_is_ended_takes_its_processes_with_it_and_goes_on(
    ready: Project, copy_of: Callable[[Project], Project], how: signal.Signals
) -> None:
    project = copy_of(ready)
    project.set(train__save_every=0.0, tune__space={**SPACE, "epochs": {"choices": [20, 21]}})
    with command(project, "--trials", "3", "--workers", "2") as process:
        until(lambda: len(list((project.root / "cache/training").glob("state-*.safetensors"))) == 2)
        training = children(process.pid)
        again = command(project, "--trials", "3")
        _, refused = again.communicate()
        process.send_signal(how)
        _, err = process.communicate()
    assert re.search(r"error: tune.db: another `finsight tune` is at work there; wait for it, or name another --study", refused)
    until(lambda: not any(map(lives, training)), 20)
    before = list(study(project))
    if how == signal.SIGTERM:
        assert process.returncode == 1
        assert re.search(r"error: training was stopped after step \d+ of \d+; the same command goes on from there", err)
        assert {run.info.status for run in runs(project)} <= {"FAILED", "FINISHED"}  # type: ignore[attr-defined]
    said, _ = tuned(project, "--trials", "3", "--workers", "2")
    assert len(said) == 3 - len(before)
    trials = study(project)
    assert len(trials) == 3
    assert not list((project.root / "cache/training").glob("state-*.safetensors")) or any(t.state.name == "PRUNED" for t in trials)


@pytest.mark.parametrize("options", [(), pytest.param(("--workers", "2"), marks=pytest.mark.long)])
def test_trials_learn_from_the_shards_that_are_named(
    ready: Project, copy_of: Callable[[Project], Project], tmp_path: Path, options: tuple[str, ...]
) -> None:
    project = copy_of(ready)
    project.set(train__stream__shards=str(tmp_path / "none"))
    with command(project, *options) as process:
        _, err = process.communicate()
    assert process.returncode == 1
    assert err.strip().splitlines()[-1].startswith(f"error: {tmp_path}/none: holds no shards.json; ")


@pytest.mark.long
def test_each_trial_has_a_gpu_to_itself(ready: Project, copy_of: Callable[[Project], Project], tmp_path: Path) -> None:
    project = copy_of(ready)
    with_gpus(project.env, tmp_path, "GPU-aa11", "GPU-bb22")
    project.set(tune__space={"lr": SPACE["lr"]})
    tuned(project, "--trials", "4", "--workers", "2")
    by_gpu: dict[str, list[optuna.trial.FrozenTrial]] = {}
    for trial in sorted(study(project), key=lambda trial: trial.number):
        by_gpu.setdefault(trial.user_attrs["gpu"], []).append(trial)
    assert set(by_gpu) == {"GPU-aa11", "GPU-bb22"}
    for trials in by_gpu.values():
        assert all(one.datetime_complete <= next_.datetime_start for one, next_ in pairwise(trials))  # type: ignore[operator]


@pytest.mark.long
def test_more_workers_than_gpus_are_refused(ready: Project, copy_of: Callable[[Project], Project], tmp_path: Path) -> None:
    project = copy_of(ready)
    with_gpus(project.env, tmp_path, "GPU-aa11", "GPU-bb22")
    with command(project, "--workers", "3") as process:
        _, err = process.communicate()
    assert process.returncode == 1
    assert err.strip().splitlines()[-1] == (
        "error: --workers: got 3, and there are 2 GPUs here, of which each has one to itself; give 2 at most, or set train.device to cpu"
    )
