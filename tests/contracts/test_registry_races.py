"""Several processes that register at the same time, on SQLite and on a live server."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finsight.adapters.mlflow_registry import MlflowRegistry
from finsight.adapters.mlflow_tracker import MlflowTracker

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")

PROCESSES = 4
ONE = """
import json, sys, time
from pathlib import Path
from finsight.adapters.mlflow_registry import MlflowRegistry

uri, run, me, folder = sys.argv[1:]
registry = MlflowRegistry(uri, "model")
(Path(folder) / f"ready{me}").touch()
while not (Path(folder) / "go").exists():
    time.sleep(0.005)
made = {"same": registry.create(run, "bundle", "same", {"who": me}).number}
registry.set_alias("champion", made["same"])
made["own"] = registry.create(run, "bundle", f"own{me}", {"who": me}).number
registry.record({"when": "2026-05-02T10:00:00.000001+00:00", "who": me})
print(json.dumps(made))
"""


@pytest.fixture(params=["sqlite", "server"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "server":
        return str(request.getfixturevalue("mlflow_server"))
    return f"sqlite:///{tmp_path}/m.db"


def test_processes_that_register_one_bundle_at_once_meet_in_one_version(uri: str, tmp_path: Path) -> None:
    tracker = MlflowTracker(uri, "races")
    (tmp_path / "bundle.json").write_text("{}")
    run = tracker.start("train", {})
    tracker.log_files(run, [tmp_path / "bundle.json"], "bundle")
    command = [sys.executable, "-c", ONE, uri, run]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([*command, str(i), str(tmp_path)], env=os.environ, **pipes) for i in range(PROCESSES)]
    end = time.monotonic() + 120
    while len(list(tmp_path.glob("ready*"))) < PROCESSES and time.monotonic() < end:
        time.sleep(0.05)
    (tmp_path / "go").touch()
    said = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0] * PROCESSES, said
    made = [json.loads(out) for out, _ in said]
    registry = MlflowRegistry(uri, "model")
    versions = registry.versions()
    same = [v for v in versions if v.bundle_digest == "same"]
    assert len(same) == 1
    assert same[0].aliases == {"champion"}
    assert {m["same"] for m in made} == {same[0].number}
    assert {m["own"]: f"own{i}" for i, m in enumerate(made)} == {v.number: v.bundle_digest for v in versions if v not in same}
    assert sorted(line["who"] for line in registry.audit()) == [str(i) for i in range(PROCESSES)]
