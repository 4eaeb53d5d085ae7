"""Experiments, lineage and validation over HTTP: a real git, a real DVC, a real registry."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from conftest import Project
from finsight.adapters.apart import call
from finsight.adapters.git_experiments import GitExperiments
from finsight.errors import ParamsError, UnreachableError
from released import EXPERIMENT

pytestmark = pytest.mark.long


def test_an_experiment_is_listed_with_what_is_other_than_in_the_workspace(service: httpx.Client, released: Project) -> None:
    listed = service.get("/v1/experiments").json()
    assert listed["next"] is None
    (one,) = listed["items"]
    assert one["params"]["train.seed"] == {"experiment": 7, "workspace": 42}
    workspace = released.json("metrics.json")
    assert one["metrics"]
    for name, changed in one["metrics"].items():
        keys = name.split(".")
        value = workspace
        for key in keys:
            value = value[key]
        assert changed["workspace"] == value != changed["experiment"]
    said = subprocess.run(
        [sys.executable, "-m", "dvc", "exp", "list", "--name-only", "--all-commits"], cwd=released.root, capture_output=True, text=True
    )
    assert said.stdout.split() == [one["name"]] == [EXPERIMENT]


def test_experiments_of_one_second_come_page_by_page(service: httpx.Client, released: Project) -> None:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=released.root, capture_output=True, text=True, check=True).stdout.strip()

    commit, reference = git("for-each-ref", "--format=%(objectname) %(refname)", f"refs/exps/*/*/{EXPERIMENT}").split()
    others = [reference.removesuffix(EXPERIMENT) + name for name in ("aa", "zz")]
    try:
        for other in others:
            git("update-ref", other, commit)
        found, cursor = [], None
        for _ in range(3):
            shown = service.get("/v1/experiments", params={"limit": 1} | ({"cursor": cursor} if cursor else {})).json()
            found += [one["name"] for one in shown["items"]]
            cursor = shown["next"]
        assert found == ["zz", EXPERIMENT, "aa"]
        assert cursor is None
    finally:
        for other in others:
            git("update-ref", "-d", other)


def test_outside_git_there_are_no_experiments(tmp_path: Path) -> None:
    assert GitExperiments(tmp_path).all() == []
    assert GitExperiments(tmp_path).outcomes([]) == []


def test_a_comparison_is_that_of_the_command(service: httpx.Client, released: Project) -> None:
    found = service.get(f"/v1/experiments/champion/diff/{EXPERIMENT}").json()
    theirs = json.loads(released.cli("compare", "--base", "champion", "--new", EXPERIMENT, "--format", "json"))
    assert (found["base"], found["new"]) == ("champion", EXPERIMENT)
    assert found["metrics"] == theirs["metrics"]
    assert found["metrics"].keys() > {"accuracy", "macro_f1"}
    assert (found["rows"], found["verdict"], found["gates"]) == (theirs["rows"], theirs["verdict"], theirs["gates"])


@pytest.mark.parametrize(
    ("sides", "status"),
    [
        ("champion/diff/nobody", 404),
        ("99/diff/1", 404),
        ("main/diff/1", 404),
        ("1/diff/HEAD~1", 422),
        ("1/diff/--all", 422),
        ("a..b/diff/1", 422),
    ],
)
def test_only_what_has_a_name_here_is_compared(service: httpx.Client, sides: str, status: int) -> None:
    answer = service.get(f"/v1/experiments/{sides}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_what_can_not_be_compared_is_a_conflict(service: httpx.Client, released: Project) -> None:
    kept = released.root / "reports/predictions.parquet"
    away = kept.with_suffix(".away")
    kept.rename(away)
    try:
        answer = service.get("/v1/experiments/1/diff/workspace")
    finally:
        away.rename(kept)
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith("workspace: it has no reports/predictions.parquet")


def test_lineage_is_verified_and_a_changed_byte_is_found(service: httpx.Client, released: Project) -> None:
    found = service.get("/v1/lineage/challenger").json()
    assert (found["version"], found["verified"], found["failure"], found["signature"]) == (2, True, None, "development")
    assert found["files"] > 10
    assert found["chain"][0] == {"name": "bundle", "what": f"sha256 {found['statement']['subject'][0]['digest']['sha256']}"}
    run = service.get("/v1/models/2").json()["run"]
    (path,) = (released.root / "mlruns").glob(f"**/{run}/artifacts/reports/metrics.json")
    content = path.read_bytes()
    try:
        path.write_bytes(content + b" ")
        found = service.get("/v1/lineage/challenger").json()
    finally:
        path.write_bytes(content)
    assert found["verified"] is False
    assert "reports/metrics.json" in found["failure"]
    assert "/tmp/" not in found["failure"]  # where it was unpacked is nobody's business


def test_who_comes_when_all_places_are_taken_is_asked_to_come_again(service: httpx.Client) -> None:
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: service.get("/v1/lineage/1"), range(5)))
    assert {answer.status_code for answer in answers} == {200, 503}
    for answer in answers:
        if answer.status_code == 503:
            assert answer.json()["type"] == "urn:finsight:problem:busy"
            assert int(answer.headers["Retry-After"]) > 0


def test_work_apart_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="trace took longer than 0 s"):
        call("finsight.bootstrap.apart", "trace", {"version": "1"}, 0.2, tmp_path)


def test_work_apart_fails_as_it_would_here(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"params.yaml: no such file"):
        call("finsight.bootstrap.apart", "trace", {"version": "1"}, 60, tmp_path)


def test_the_validation_is_that_of_the_workspace(service: httpx.Client, released: Project) -> None:
    assert service.get("/v1/data/validation").json() == released.json("validation.json")


def test_what_is_wrong_with_the_service_itself_is_told_to_its_log_alone(service: httpx.Client, released: Project) -> None:
    params = released.root / "params.yaml"
    content = params.read_text()
    try:
        params.write_text(content + "\nnonsense: /secret/place\n")
        answer = service.get("/v1/models")
    finally:
        params.write_text(content)
    assert answer.status_code == 500
    assert "nonsense" not in answer.text
