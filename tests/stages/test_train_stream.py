"""The train stage on rows that it reads while it learns: prepared ones, shards in a folder, shards in a bucket; killed between shards, and
in two processes."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Project

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def sharded(make_project: Callable[[str], Project]) -> Project:
    """A project with shards of 20 rows, of which 45 are in memory at a time: an epoch goes through several blocks of two."""
    project = make_project("sharded")
    project.set(train__epochs=2, train__batch_tokens=256, train__lr=0.003, train__save_every=0.0, train__stream__shuffle_buffer=45)
    project.run("ingest", "validate", "prepare")
    said = project.cli("shards", "data/shards", "--rows", "20")
    assert "at data/shards; with train.stream.shards: data/shards they are learned from" in said
    assert len(list((project.root / "data/shards").glob("train-*.arrow"))) > 5
    project.set(train__stream__shards="data/shards")
    return project


def trained(project: Project) -> str:
    project.run("train")
    return str(project.json("train.json")["checkpoint_sha256"])


def steps(project: Project) -> list[int]:
    path = project.root / "reports/steps.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []


def killed_at(project: Project, step: int) -> None:
    """Begin to train, and kill all of it once a step is done."""
    (project.root / "reports/steps.jsonl").unlink(missing_ok=True)
    with project.start("train", start_new_session=True) as process:
        deadline = time.monotonic() + 300
        while len(steps(project)) < step:
            assert process.poll() is None, "it ended before the step"
            assert time.monotonic() < deadline, "no step was seen"
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_that_is_killed_between_shards_goes_on_to_the_same_weights(
    sharded: Project, copy_of: Callable[[Project], Project], processes: int
) -> None:
    project = copy_of(sharded)
    project.set(train__launch__processes=processes)
    expected = trained(project)
    rows = project.json("prepare.json")["splits"]["train"]["rows"]
    found = project.json("train.json")
    assert (found["rows"], found["processes"], found["stream"]["of"]) == (rows, processes, "data/shards")
    at = len(steps(project)) // 4  # in the middle of the first epoch, which has read some of its shards, and not the others
    killed_at(project, at)
    assert trained(project) == expected
    assert steps(project)[0] >= at > 1, "it did not begin anew"


def test_two_processes_do_what_one_does_with_a_stream(sharded: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(sharded)
    project.set(train__accumulation=2)
    trained(project)
    alone = project.json("train.json")
    project.set(train__launch__processes=2)
    trained(project)
    together = project.json("train.json")
    assert (alone["processes"], together["processes"]) == (1, 2)
    for name in ("train_loss", "validation_loss", "validation_macro_f1"):
        assert together[name] == pytest.approx(alone[name], abs=1e-4), name


@pytest.mark.usefixtures("s3_credentials")
def test_shards_in_a_bucket_teach_what_shards_in_a_folder_do(
    sharded: Project, copy_of: Callable[[Project], Project], s3: tuple[str, Path]
) -> None:
    project = copy_of(sharded)
    project.env["AWS_ENDPOINT_URL"], root = s3
    (root / "corpora").mkdir(exist_ok=True)
    time.sleep(0.2)  # the server looks at the folder anew
    expected = trained(project)
    project.cli("shards", "s3://corpora/wire", "--rows", "20")
    project.set(train__stream__shards="s3://corpora/wire")
    assert trained(project) == expected
    assert project.json("train.json")["stream"]["of"] == "s3://corpora/wire"
    shard = root / "corpora/wire/train-00001.arrow"
    shard.write_bytes(shard.read_bytes()[:500])
    time.sleep(0.2)
    assert "s3://corpora/wire/train-00001.arrow: damaged at byte 304" in project.fail("train")


def test_prepared_rows_are_streamed_above_a_number_and_no_teacher_is_heard_then(
    sharded: Project, copy_of: Callable[[Project], Project]
) -> None:
    project = copy_of(sharded)
    project.set(train__stream={"shards": "", "above": 100, "shuffle_buffer": 64}, train__prune__heads=0.5, train__prune__epochs=1)
    trained(project)
    assert project.json("train.json")["stream"]["of"] == "data/prepared"
    assert project.json("train.json")["prune"]["heads_of_a_layer"] == 1
    project.set(train__adapt__epochs=1)
    assert "train.adapt: holds all rows in memory, and" in project.fail("train")
    project.set(train__teacher=str(project.backbone))
    assert (
        "rows are streamed; raise train.stream.above (100) and leave train.stream.shards empty, or turn train.teacher off"
        in project.fail("train")
    )
