"""`finsight tune` on a tiny model: searched, stopped, gone on with."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import pytest

from conftest import Project

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


def runs(project: Project) -> Sequence[object]:
    from mlflow import MlflowClient

    client = MlflowClient(project.env["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("finsight")
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


def test_a_trial_that_breaks_is_counted_and_told(ready: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(ready)
    project.set(tune__space={"lr": {"choices": [1.0e30, 1.0e-3]}}, train__max_grad_norm=1.0e30)
    trials, proposed = tuned(project)
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
