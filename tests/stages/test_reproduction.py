"""How a model that was made again is judged; that it really is made again stands in tests/e2e/test_clone.py."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from conftest import Project
from finsight.pipeline.evidence import Evidence
from finsight.pipeline.provenance import read_statement
from finsight.pipeline.reproduction import Reproduction, judge

LOCK = "schema: '2.0'\nstages:\n  train:\n    cmd: x\n    outs:\n    - {path: models/checkpoint, md5: abc.dir}\n"


@pytest.fixture
def statement(finished: Project) -> dict[str, Any]:
    content = copy.deepcopy(read_statement(finished.root / "models/provenance"))
    content["predicate"]["buildDefinition"]["resolvedDependencies"].append({"name": "models/checkpoint", "digest": {"dvcMd5": "abc.dir"}})
    return content


def judged(project: Project, statement: dict[str, Any], folder: Path, **intervals: float) -> Reproduction:
    (folder / "dvc.lock").write_text(LOCK)
    then = folder / "metrics.json"
    then.write_text(json.dumps(project.json("metrics.json") | intervals))
    return judge(statement, then, Evidence(project.root / "models/bundle", project.root / "reports", folder))


def environment(statement: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = statement["predicate"]["buildDefinition"]["internalParameters"]["environment"]
    return found


def other_bundle(statement: dict[str, Any]) -> None:
    statement["subject"][0]["digest"]["sha256"] = "0" * 64


def test_the_same_bundle_is_byte_for_byte(finished: Project, statement: dict[str, Any], tmp_path: Path) -> None:
    found = judged(finished, statement, tmp_path)
    assert (found.verdict, found.problem, found.notes) == ("reproduced byte for byte", "", [])
    assert ("models/checkpoint", "abc.dir", "abc.dir") in found.rows
    assert {name for name, _, _ in found.rows} > {"bundle", "accuracy", "macro_f1"}


def test_on_another_machine_the_metrics_have_to_be_within_their_intervals(
    finished: Project, statement: dict[str, Any], tmp_path: Path
) -> None:
    other_bundle(statement)
    environment(statement)["cpu"] = "another"
    environment(statement)["packages"]["torch"] = "1.0"
    found = judged(finished, statement, tmp_path)
    assert found.verdict.startswith("reproduced on another machine: not byte for byte")
    assert [note.split(" was ")[0] for note in found.notes] == ["cpu", "torch"]
    found = judged(finished, statement, tmp_path, macro_f1_low=0.9, macro_f1_high=0.95)
    assert found.problem == "not reproduced: macro_f1 outside the 95 % interval that it had"


def test_strict_on_the_same_machine_has_to_be_equal(finished: Project, statement: dict[str, Any], tmp_path: Path) -> None:
    other_bundle(statement)
    assert judged(finished, statement, tmp_path).problem.startswith("not reproduced: the bundle differs, with strict determinism")
    statement["predicate"]["buildDefinition"]["externalParameters"]["params"]["train"]["determinism"] = "fast"
    assert judged(finished, statement, tmp_path).verdict.startswith("reproduced without strict determinism")
