"""The train stage as dvc.yaml calls it: repeated, killed, stopped, with a teacher, with too little memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Project, starter_rows, write_csv
from trainings import curves, started, states, steps, trained, wait_for_a_step


@pytest.fixture(scope="module")
def prepared(make_project: Callable[[str], Project]) -> Project:
    """A project that is ready to train, for a few dozen steps; tests copy it."""
    project = make_project("prepared")
    project.set(train__epochs=3, train__batch_tokens=256, train__lr=0.003, train__save_every=0.0)
    project.run("ingest", "validate", "prepare")
    return project


def test_strict_gives_equal_bytes_in_other_processes(prepared: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(prepared)
    first, again = trained(project)["checkpoint_sha256"], trained(project)["checkpoint_sha256"]
    assert first == again
    project.set(train__seed=43)
    assert trained(project)["checkpoint_sha256"] != first
    assert states(project) == [], "what was kept to go on from is gone"


def test_each_step_is_a_line_that_others_can_follow(prepared: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(prepared)
    trained(project)
    lines = steps(project)
    plain = [line for line in lines if "validation_loss" not in line]
    assert [line["step"] for line in plain] == list(range(1, plain[-1]["steps"] + 1))
    assert [line["epoch"] for line in lines if "validation_loss" in line] == [1, 2, 3]
    assert [row["epoch"] for row in curves(project)] == [1, 2, 3]


@pytest.mark.parametrize("with_signal", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_a_run_that_is_ended_goes_on_to_the_same_weights(
    prepared: Project, copy_of: Callable[[Project], Project], with_signal: signal.Signals
) -> None:
    project = copy_of(prepared)
    expected = trained(project)["checkpoint_sha256"]
    with started(project) as process:
        wait_for_a_step(project, process, 12)
        process.send_signal(with_signal)
        _, err = process.communicate()
    if with_signal == signal.SIGTERM:
        assert process.returncode == 1
        assert "error: training was stopped after step" in err
        assert "the same command goes on from there" in err
    else:
        assert process.returncode == -signal.SIGKILL
    assert len(states(project)) == 1
    found = trained(project)
    assert steps(project)[0]["step"] > 10, "it did not begin anew"
    assert found["checkpoint_sha256"] == expected
    assert [row["epoch"] for row in curves(project)] == [1, 2, 3]
    assert states(project) == []


@pytest.mark.long
def test_a_run_with_other_parameters_does_not_go_on_from_it(prepared: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(prepared)
    with started(project) as process:
        wait_for_a_step(project, process, 5)
        process.kill()
    project.set(train__weight_decay=0.02)
    trained(project)
    assert steps(project)[0]["step"] == 1


@pytest.mark.long
def test_a_teacher_is_trained_first_and_kept(prepared: Project, copy_of: Callable[[Project], Project], tmp_path: Path) -> None:
    """A teacher of its own vocabulary, with texts that have no labels."""
    project = copy_of(prepared)
    write_csv(project.root / "data/external/wire/texts.csv", [{"text": row["text"]} for row in starter_rows(600)[300:]])
    project.set(
        corpora__wire={"path": "data/external/wire", "format": "csv", "license": "CC0-1.0", "label": None},
        ingest__unlabelled=["wire"],
    )
    project.run("ingest", "prepare")
    alone = trained(project)
    rows = alone["rows"]
    project.set(train__teacher=str(project.backbone), train__distillation__seeds=2, train__distillation__epochs=1)
    taught = trained(project)
    unlabelled = project.json("prepare.json")["unlabelled"]["rows"]
    assert unlabelled > 100
    assert taught["rows"] == rows + unlabelled
    assert taught["checkpoint_sha256"] != alone["checkpoint_sha256"]
    assert taught["teacher"]["name"] == str(project.backbone)
    assert list(dict.fromkeys(line["run"] for line in steps(project))) == ["teacher 1", "teacher 2", "train"]
    project.set(train__epochs=2)
    assert [set(found) for found in taught["teacher"]["trained"]] == [{"seed", "best_epoch", "validation_macro_f1"}] * 2
    assert trained(project)["teacher"] == taught["teacher"]
    assert {line["run"] for line in steps(project)} == {"train"}, "what the teachers said is kept"
    project.set(train__distillation__variants=2, train__distillation__seeds=1, train__distillation__seed=1042)
    varied = trained(project)
    assert varied["rows"] == 3 * rows + unlabelled, "two copies of each training row"
    assert varied["teacher"]["trained"] == taught["teacher"]["trained"][:1], "the same teacher, by its own seed"
    assert {line["run"] for line in steps(project)} == {"train"}, "the teachers are kept too, not only what they said"
    for said in (project.root / "cache/training").glob("teacher-*.safetensors"):
        said.unlink()
    assert trained(project)["checkpoint_sha256"] == varied["checkpoint_sha256"], "a kept teacher says what it said"
    assert {line["run"] for line in steps(project)} == {"train"}
    project.set(train__seed=43)
    assert trained(project)["teacher"] == varied["teacher"], "another student of the same teacher"


def test_a_teacher_without_further_texts(prepared: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(prepared)
    project.set(train__epochs=1, train__teacher=str(project.backbone), train__distillation__epochs=1)
    assert trained(project)["rows"] == project.json("prepare.json")["splits"]["train"]["rows"]
    assert list(dict.fromkeys(line["run"] for line in steps(project))) == ["teacher 1", "train"]


@pytest.mark.long
def test_a_backbone_reads_first_and_goes_on_reading_after_a_kill(prepared: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(prepared)
    alone = trained(project)
    assert "adapt" not in alone
    project.set(train__adapt__epochs=2)
    found = trained(project)
    assert found["checkpoint_sha256"] != alone["checkpoint_sha256"]
    assert found["adapt"]["texts"] == found["rows"], "validation and test are not read"
    assert found["adapt"]["losses"][1] < found["adapt"]["losses"][0]
    assert list(dict.fromkeys(line["run"] for line in steps(project))) == ["adaptation", "train"]
    assert [row["epoch"] for row in curves(project)] == [1, 2, 3], "those of the training"
    (adapted,) = states(project)
    adapted.unlink()
    with started(project) as process:
        wait_for_a_step(project, process, 5)
        process.kill()
    again = trained(project)
    assert steps(project)[0]["step"] > 3, "it did not begin anew"
    assert (again["checkpoint_sha256"], again["adapt"]) == (found["checkpoint_sha256"], found["adapt"])
    project.set(train__lr=0.002)
    assert trained(project)["adapt"]["losses"] == found["adapt"]["losses"]
    assert steps(project)[0]["run"] == "train", "what was read is kept"


@pytest.mark.long
def test_a_pruned_model_recovers_and_its_cost_is_reported(prepared: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(prepared)
    alone = trained(project)
    assert "prune" not in alone
    shares = {"layers": 1, "heads": 0.5, "feed_forward": 0.5, "magnitude": 0.25}
    project.set(**{f"train__prune__{key}": value for key, value in shares.items()})
    found = trained(project)
    pruned = found["prune"]
    assert pruned["validation_macro_f1_before"] == alone["validation_macro_f1"]
    assert pruned["validation_macro_f1_recovered"] == found["validation_macro_f1"]
    assert pruned["parameters_after"] < pruned["parameters_before"]
    assert (found["best_epoch"], found["epochs"]) == (alone["best_epoch"], alone["epochs"]), "of the training"
    assert list(dict.fromkeys(line["run"] for line in steps(project))) == ["train", "recovery"]
    assert [row["epoch"] for row in curves(project)] == [1, 2, 3, 4, 5]
    config = json.loads((project.root / "models/checkpoint/config.json").read_text())
    assert (config["num_hidden_layers"], config["intermediate_size"]) == (1, 32)
    with started(project) as process:
        wait_for_a_step(project, process, 12)
        process.kill()
    assert len(states(project)) == 2, "the recovery's state, and the model that it began with"
    again = trained(project)
    assert (again["checkpoint_sha256"], again["prune"]) == (found["checkpoint_sha256"], pruned)
    assert steps(project)[0]["run"] == "recovery", "the training is not repeated"
    assert steps(project)[0]["step"] > 10
    assert [row["epoch"] for row in curves(project)] == [1, 2, 3, 4, 5]
    project.run("evaluate")
    project.set(train__prune__heads=0.1)
    says = "error: train.prune.heads: 0.1 of the 2 heads of a layer are 0, expected 1 to 1"
    assert project.fail("train") == says


TOO_LITTLE = """
import json, resource, sys
from pathlib import Path
import numpy as np
import torch
from finsight import bootstrap
from finsight.command import describe
from finsight.errors import FinsightError
from finsight.pipeline.train import train
params = bootstrap.load_params()
backbone = bootstrap.backbone(params)
import transformers.models.bert.modeling_bert
torch.nn.Linear(4, 4)(torch.ones(2, 4)).sum().backward()
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 1_000_000_000,) * 2)
try:
    found = train(Path("data/prepared"), params.labels, params.train, backbone, Path("models/checkpoint"), Path("r.json"),
                  Path("c.csv"), scratch=bootstrap.scratch())
    print(json.dumps({"batch_tokens": found["batch_tokens"], "accumulation": found["accumulation"]}))
except FinsightError as error:
    print(describe(error))
"""


@pytest.mark.long
def test_too_little_memory_names_the_setting_and_auto_batch_finds_what_fits(make_project: Callable[[str], Project]) -> None:
    project = make_project("memory")
    write_csv(project.root / "data/starter/rows.csv", [{**row, "text": (row["text"] + " ") * 30} for row in starter_rows(2000)])
    project.set(validate__max_characters=100_000, train__batch_tokens=1_000_000)
    project.run("ingest", "validate", "prepare")

    def run() -> str:
        environment = {**os.environ, **project.env}
        done = subprocess.run([sys.executable, "-c", TOO_LITTLE], cwd=project.root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run().startswith(
        "train.batch_tokens: 1000000 tokens a batch do not fit into the memory of cpu (RuntimeError); "
        "set it to 500000 and train.accumulation to 2, or train.auto_batch to true"
    )
    project.set(train__auto_batch=True)
    found = json.loads(run())
    assert found["batch_tokens"] < 500_000
    assert found["batch_tokens"] * found["accumulation"] == pytest.approx(1_000_000, rel=0.05)


def test_the_running_stage_shows_its_last_epoch(prepared: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(prepared)
    project.set(train__epochs=60)
    report = project.root / "reports/train.json"
    with project.start("train") as process:
        deadline = time.monotonic() + 60
        while not report.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        seen = json.loads(report.read_text())
        process.kill()
    assert set(seen) == {"epoch", "train_loss", "validation_loss", "validation_accuracy", "validation_macro_f1"}
