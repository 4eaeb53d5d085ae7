"""`finsight sweep`: many experiments at once with the real DVC, git and MLflow, in a small repository of the project's kind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

import finsight
from conftest import shipped_params, starter_rows, write_csv
from trainings import with_gpus

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
SRC = Path(finsight.__file__).parents[1]
# As the project's: what train makes is kept by DVC, and it tells MLflow how it goes.
STAGES = """stages:
  prepare:
    cmd: mkdir -p data/prepared && cp data/starter/rows.csv data/prepared/ && echo prepared >> ran
    deps: [data/starter]
    outs: [data/prepared]
  train:
    cmd: python train.py
    params: [train]
    deps: [train.py, data/prepared]
    outs:
      - models/checkpoint
      - reports/train.json: {cache: false}
  evaluate:
    cmd: cp reports/train.json reports/metrics.json
    deps: [reports/train.json, models/checkpoint]
    outs:
      - reports/metrics.json: {cache: false}
metrics: [reports/metrics.json]
"""
TRAIN = """import json, os, sys, time
from pathlib import Path
from types import SimpleNamespace
from finsight import bootstrap
params = bootstrap.load_params()
train = params.train
if train.seed == 13:
    sys.exit("an unlucky number")
place = Path(os.environ["PLACE"])
with (place / "began").open("a") as file:
    file.write(f"{os.getpid()} {train.seed}\\n")
while train.seed in (7, 8) and not (place / "go").exists():
    time.sleep(0.05)
with bootstrap.tracked(params) as run:
    score = 1 / (1 + train.seed) - train.lr
    run(SimpleNamespace(name="", epoch=1, epochs=1, step=1, steps=1, loss=0.5, metrics={"validation_macro_f1": score}))
    Path("models").mkdir(exist_ok=True)
    Path("models/checkpoint").write_bytes(str((train.lr, train.seed)).encode() * 10000)
    run.made(f"{train.lr} {train.seed}")
gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "")
Path("reports/train.json").write_text(json.dumps({"validation_macro_f1": score, "seed": train.seed, "gpu": gpu}))
"""


@dataclass
class Repository:
    root: Path
    env: dict[str, str] = field(default_factory=dict)

    def __call__(self, *command: str) -> str:
        return subprocess.run(command, cwd=self.root, env=self.env, text=True, check=True, capture_output=True).stdout

    def start(self, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "finsight.cli", "sweep", *options]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=self.root, env=self.env, text=True, **pipes)  # type: ignore[call-overload, no-any-return]

    def sweep(self, *options: str, code: int = 0) -> tuple[list[str], str]:
        """What it said of experiments, and its last word."""
        with self.start(*options) as process:
            out, err = process.communicate()
        assert process.returncode == code, f"{out[-2000:]}{err[-3000:]}"
        last = (err if code else out).strip().splitlines()[-1]
        return [line for line in out.splitlines() if line.startswith(("sweep-", "warning: "))], last

    def experiments(self) -> dict[str, str]:
        """Commits by name."""
        listed = self("git", "for-each-ref", "--format=%(refname:lstrip=4) %(objectname)", "refs/exps").splitlines()
        return dict(line.split() for line in listed)

    def began(self) -> list[tuple[int, int]]:
        """Process and seed of each training that has begun."""
        path = self.root / ".place/began"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(process), int(seed)) for process, seed in map(str.split, lines)]

    def go(self) -> None:
        (self.root / ".place/go").touch()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    root = tmp_path_factory.mktemp("swept") / "repo"
    root.mkdir()
    (root / "params.yaml").write_text(shipped_params())
    (root / "dvc.yaml").write_text(STAGES)
    (root / "train.py").write_text(TRAIN)
    (root / "reports").mkdir()
    (root / "reports/.keep").touch()
    (root / ".gitignore").write_text("/.place\n/mlflow.db*\n/mlruns\n/ran\n/data/prepared\n/models\n__pycache__\n")
    write_csv(root / "data/starter/rows.csv", starter_rows(20))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # The repository's own .venv is not there, so the stage's finsight is found as the test's.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_", "CUDA_"))}
    run = Repository(root, kept | {"PATH": path, "PYTHONPATH": str(SRC), "DVC_NO_ANALYTICS": "1", "PLACE": str(root / ".place")})
    (root / ".place").mkdir()
    for command in ("git init -q -b main", "git config user.name t", "git config user.email t@example.org", "dvc init -q", "dvc repro -q"):
        run(*command.split())
    run("git", "add", "-A")
    run("git", "commit", "-qm", "first")
    return run


@pytest.fixture
def repo(made: Repository, tmp_path: Path) -> Repository:
    root = tmp_path / "repo"
    shutil.copytree(made.root, root, symlinks=True)
    shutil.rmtree(root / ".place")
    (root / ".place").mkdir()
    return Repository(root, made.env | {"PLACE": str(root / ".place")})


def until(true: Callable[[], Any], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.05)


def below(root: Path) -> Iterator[int]:
    """Processes that work in a folder."""
    for cwd in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if str(cwd.readlink()).startswith(str(root)):
                yield int(cwd.parent.name)
        except OSError:
            continue


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_ten_at_once_all_end_and_all_are_recorded(repo: Repository) -> None:
    (repo.root / "notes.txt").write_text("the user's own")
    # One of the earliest has to wait for the last: ten are under way at once.
    with repo.start("-S", "train.lr=1e-4,2e-4,3e-4,4e-4,5e-4", "-S", "train.seed=7,8", "--workers", "10") as process:
        until(lambda: len(repo.began()) == 10, 900)
        repo.go()
        out, err = process.communicate()
    assert process.returncode == 0, err
    names = [line.split(":")[0] for line in out.splitlines() if line.startswith("sweep-")]
    assert sorted(names) == sorted(repo.experiments())
    assert len(set(names)) == 10
    wanted = {(rate, seed) for rate in (1e-4, 2e-4, 3e-4, 4e-4, 5e-4) for seed in (7, 8)}
    rows = json.loads(repo("dvc", "exp", "show", "--json"))
    shown = [one["revs"][0]["data"] for row in rows for one in row["experiments"] or ()]
    of = [(data["params"]["params.yaml"]["data"]["train"], data["metrics"]["reports/metrics.json"]["data"]) for data in shown]
    assert {(train["lr"], train["seed"]) for train, _ in of} == wanted
    assert all(measured["validation_macro_f1"] == 1 / (1 + train["seed"]) - train["lr"] for train, measured in of)
    client = MlflowClient(f"sqlite:///{repo.root}/mlflow.db")
    experiment = client.get_experiment_by_name("finsight")
    assert experiment
    runs = [run for run in client.search_runs([experiment.experiment_id]) if run.data.params["train.seed"] in ("7", "8")]
    assert {(float(run.data.params["train.lr"]), int(run.data.params["train.seed"])) for run in runs} == wanted
    assert len(runs) == 10
    assert all(run.info.status == "FINISHED" and "validation_macro_f1" in run.data.metrics for run in runs)
    # What the best has made is in the cache that all share, and nothing is left of the work.
    best = out.splitlines()[-1].removeprefix("dvc exp apply ")
    assert json.loads(repo("git", "show", f"{repo.experiments()[best]}:reports/train.json"))["seed"] == 7
    assert repo("git", "status", "--porcelain").split() == ["??", "notes.txt"]
    assert not list((repo.root / ".dvc/tmp/finsight-sweep").iterdir())
    repo("dvc", "exp", "apply", best)
    assert (repo.root / "models/checkpoint").read_bytes().startswith(b"(0.0001, 7)")
    # The same again has nothing to do.
    repo("git", "reset", "-q", "--hard")
    said, last = repo.sweep("-S", "train.lr=1e-4,2e-4,3e-4,4e-4,5e-4", "-S", "train.seed=7,8", "--workers", "10")
    assert (len(said), last, len(repo.began())) == (10, f"dvc exp apply {best}", 10)


def test_what_is_killed_costs_itself_alone_and_what_is_wrong_does_not_stop_the_others(repo: Repository) -> None:
    with repo.start("-S", "train.seed=7,8,9,13", "--workers", "3") as process:
        until(lambda: {7, 8} <= {seed for _, seed in repo.began()})
        training = next(pid for pid, seed in repo.began() if seed == 7)
        os.kill(training, signal.SIGKILL)  # a stage, by a machine without memory
        until(lambda: [seed for _, seed in repo.began()].count(7) == 2)
        other = next(pid for pid, seed in repo.began() if seed == 8)
        os.kill(leash_of(other), signal.SIGKILL)
        until(lambda: [seed for _, seed in repo.began()].count(8) == 2)
        assert not Path(f"/proc/{other}").exists() or "Z" in Path(f"/proc/{other}/stat").read_text()
        repo.go()
        out, err = process.communicate()
    assert process.returncode == 1
    assert len(repo.experiments()) == 3
    assert err.strip().splitlines()[-1].startswith("error: 1 of 4 experiments failed, sweep-")
    assert "an unlucky number" in err.strip().splitlines()[-1]
    assert [seed for _, seed in repo.began()].count(7) == 2, "the leash of another was killed, and this one went on"
    assert "it is tried again" in out


def leash_of(process: int) -> int:
    """The leash above a process."""
    while b"leash.py" not in Path(f"/proc/{process}/cmdline").read_bytes():
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return process


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_that_is_ended_leaves_nothing_and_goes_on(repo: Repository, how: signal.Signals) -> None:
    with repo.start("-S", "train.seed=6,7,8", "--workers", "3") as process:
        until(lambda: len(repo.began()) == 3 and len(repo.experiments()) == 1)
        process.send_signal(how)
        _, err = process.communicate()
    if how == signal.SIGTERM:
        assert process.returncode == 1
        assert err.strip().splitlines()[-1] == "error: the sweep was stopped; the same command goes on from there"
        assert not list((repo.root / ".dvc/tmp/finsight-sweep").iterdir())
    until(lambda: not list(below(repo.root)), 20)
    repo.go()
    said, _ = repo.sweep("-S", "train.seed=6,7,8", "--workers", "3")
    assert len(said) == len(repo.experiments()) == 3
    assert [seed for _, seed in repo.began()].count(6) == 1
    assert not list((repo.root / ".dvc/tmp/finsight-sweep").iterdir())


def test_each_has_a_gpu_to_itself(repo: Repository, tmp_path: Path) -> None:
    with_gpus(repo.env, tmp_path, "GPU-aa11", "GPU-bb22")
    _, refused = repo.sweep("-S", "train.seed=1,2,3", "--workers", "3", code=1)
    assert refused.startswith("error: --workers: got 3, and there are 2 GPUs here")
    with repo.start("-S", "train.seed=7,8", "--workers", "2") as process:
        until(lambda: len(repo.began()) == 2)
        repo.go()
        process.communicate()
    assert process.returncode == 0
    found = [json.loads(repo("git", "show", f"{commit}:reports/train.json"))["gpu"] for commit in repo.experiments().values()]
    assert sorted(found) == ["GPU-aa11", "GPU-bb22"]


def test_gpus_are_for_what_the_experiments_themselves_train_on(repo: Repository, tmp_path: Path) -> None:
    with_gpus(repo.env, tmp_path, "GPU-aa11")
    said, _ = repo.sweep("-S", "train.seed=1", "-S", "train.device=cpu", "--workers", "2")
    assert len(said) == 1


def test_a_value_that_is_named_twice_is_one_experiment(repo: Repository) -> None:
    said, _ = repo.sweep("-S", "train.seed=1,1", "--workers", "2")
    assert len(said) == len(repo.began()) == 1


def test_of_experiments_that_do_not_train_none_is_the_best(repo: Repository) -> None:
    """Their report is the commit's."""
    said, last = repo.sweep("-S", "train.seed=1,2", "prepare")
    assert all(": recorded with train.seed " in line for line in said)
    assert (len(said), last, repo.began()) == (2, said[-1], [])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["-S", "train.seed=1", "evalute"], "error: evalute: Stage 'evalute' not found inside 'dvc.yaml' file; `dvc stage list` has"),
        (["-S", "ingest.corpora=[starter],[phrasebank]"], "error: corpus phrasebank: data/external/phrasebank.dvc is not committed"),
        (["-S", "train.seed=1,two"], "error: with train.seed two: train.seed: got 'two'"),
        (["-S", "train.sead=1,2"], "error: with train.sead 1: -S train.sead=1: "),
        (["-S", "train.seed"], "error: -S: "),
        (["-S", "train.seed=1", "-n", "a/b"], "error: --name: got 'a/b', expected letters, digits and hyphens"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_begins(made: Repository, options: list[str], line: str) -> None:
    _, last = made.sweep(*options, code=3 if line.startswith("error: corpus") else 1)
    assert last.startswith(line)
    assert made.experiments() == {}


def test_changes_that_no_experiment_would_see_are_refused(repo: Repository) -> None:
    with (repo.root / "params.yaml").open("a") as file:
        file.write("# mine\n")
    _, last = repo.sweep("-S", "train.seed=1,2", code=3)
    assert last.startswith("error: params.yaml: changed and not committed; commit first")
