"""Jobs over REST, down to the experiment: a real HTTP server, a real worker, the real DVC in a small repository of the project's kind."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from ruamel.yaml import YAML

import finsight
from apps import app_with, rules
from conftest import Project, shipped_params, starter_rows, write_csv
from finsight.adapters.folder_artifacts import FolderArtifacts
from finsight.adapters.job_process import plain_environment
from finsight.adapters.jobs import RepositoryJobs
from finsight.adapters.redis_queue import RedisQueue
from finsight.domain.access import Principal
from finsight.domain.jobs import Job, Kind, Limits, Order, State
from finsight.params.overrides import hydra
from finsight.service.access import Credentials
from finsight.service.jobs import Jobs
from finsight.service_ports import Ending
from servers import free_port, wait_for

pytestmark = pytest.mark.long
# Stages named as the project's; train says how it goes, as the real one does.
STAGES = """stages:
  train:
    cmd: python train.py
    params: [train, ingest.corpora]
    deps: [train.py]
    outs:
      - reports/train.json: {cache: false}
  evaluate:
    cmd: cp reports/train.json reports/metrics.json && echo evaluated
    deps: [reports/train.json]
    outs:
      - reports/metrics.json: {cache: false}
"""
TRAIN = """import json, time
from pathlib import Path
from ruamel.yaml import YAML
from finsight.adapters.live import Live
from types import SimpleNamespace
params = YAML(typ="safe").load(Path("params.yaml"))
live = Live()
def tell(epoch, step, metrics):
    live(SimpleNamespace(name="", epoch=epoch, epochs=2, step=step, steps=4, loss=0.5, metrics=metrics))
for epoch in (1, 2):
    print("epoch", epoch, flush=True)
    for step in range(1, 3):
        tell(epoch, step + 2 * (epoch - 1), {})
        time.sleep(params["train"]["save_every"] / 100)
    tell(epoch, 2 * epoch, {"validation_macro_f1": epoch / 2})
Path("reports/train.json").write_text(json.dumps({"best_epoch": 2, "lr": params["train"]["lr"], "device": "cpu"}))
"""
SRC = Path(finsight.__file__).parents[1]


class Keys:
    """A gate whose keys are tenants."""

    def principal(self, presented: Credentials) -> Principal | None:
        key = presented.key
        role = "viewer" if key == "guests" else "trainer"
        return Principal(f"of-{key}", key, frozenset({role})) if key else None

    lately = principal


class Small:
    """A small repository, its service, and a client of tenant a."""

    def __init__(self, root: Path, redis: str) -> None:
        self.root, self.redis = root, redis
        self.queue = RedisQueue(redis)
        self.jobs = RepositoryJobs(root, FolderArtifacts(root / ".service/objects"))
        self.http = httpx.Client(headers={"X-API-Key": "a"}, timeout=30)

    def git(self, *command: str) -> str:
        return subprocess.run(["git", *command], cwd=self.root, capture_output=True, text=True, check=True).stdout

    def post(self, kind: str, parameters: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
        body = json.dumps({"kind": kind, "parameters": parameters or {}})
        return self.http.post("/v1/jobs", content=body, headers={"Content-Type": "application/json", **headers})

    def ended(self, job: str, seconds: float = 150) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while True:
            found: dict[str, Any] = self.http.get(f"/v1/jobs/{job}").json()
            if found["state"] not in ("queued", "running"):
                return found
            assert time.monotonic() < end, f"{found}\n{self.http.get(f'/v1/jobs/{job}/log').text}"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("small")
    (root / "params.yaml").write_text(shipped_params())
    (root / "dvc.yaml").write_text(STAGES)
    (root / "train.py").write_text(TRAIN)
    (root / "reports").mkdir()
    (root / "reports/.keep").touch()
    (root / ".gitignore").write_text("/.service/\n__pycache__\n")
    write_csv(root / "data/starter/rows.csv", starter_rows(20))
    for command in ("git init -q -b main", "git config user.name t", "git config user.email t@example.org"):
        subprocess.run(command.split(), cwd=root, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=root, check=True)
    for command in ("git add -A", "git commit -qm first"):
        subprocess.run(command.split(), cwd=root, check=True)
    return root


@pytest.fixture
def small(repository: Path, tmp_path: Path, redis_url: str) -> Iterator[Small]:
    shutil.copytree(repository, tmp_path / "small", symlinks=True)
    found = Small(tmp_path / "small", redis_url)
    app = app_with(Keys(), jobs=Jobs(found.queue, found.jobs.order, Limits(3, 2)), held_to=rules("*=100000/second"))
    server = uvicorn.Server(uvicorn.Config(app, port=free_port(), log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    found.http.base_url = httpx.URL(f"http://127.0.0.1:{server.config.port}")
    try:
        yield found
    finally:
        server.should_exit = True
        thread.join()
        found.http.close()
        found.queue.close()


@pytest.fixture
def worker(small: Small) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(**env: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "FINSIGHT_REDIS_URL": small.redis, "PYTHONPATH": str(SRC), **env}
        started.append(subprocess.Popen([sys.executable, "-m", "finsight.cli", "worker"], cwd=small.root, env=environment))
        return started[-1]

    yield start
    for process in started:
        process.terminate()
        assert process.wait(20) in (0, -signal.SIGKILL)


def test_a_training_is_an_experiment_that_is_followed_live(small: Small, worker: Callable[[], Any]) -> None:
    worker()
    answer = small.post("evaluate", {"train.lr": 3e-05, "train.save_every": 60, "train.dropout": None})
    assert answer.status_code == 201
    job = answer.json()["id"]
    assert answer.headers["Location"] == f"/v1/jobs/{job}"
    seen = [small.http.get(f"/v1/jobs/{job}").json()]
    while seen[-1]["state"] in ("queued", "running"):
        time.sleep(0.1)
        seen.append(small.http.get(f"/v1/jobs/{job}").json())
    done = seen[-1]
    assert (done["state"], done["attempt"], done["error"], done["stage"], done["progress"]) == ("succeeded", 1, "", "evaluate", 1.0)
    assert {"train", "evaluate"} <= {one["stage"] for one in seen}
    assert {0.5, 0.75, 1.0} & {one["progress"] for one in seen if one["stage"] == "train"}
    assert done["metrics"] == {"best_epoch": 2, "lr": 3e-05}
    # It is there, by its name, as any experiment is.
    listed = subprocess.run([sys.executable, "-m", "dvc", "exp", "list", "--name-only"], cwd=small.root, capture_output=True, text=True)
    assert listed.stdout.split() == [done["experiment"]]
    params = YAML(typ="safe").load(
        small.git("show", f"{small.git('for-each-ref', '--format=%(objectname)', 'refs/exps').split()[0]}:params.yaml")
    )
    assert (params["train"]["lr"], params["train"]["dropout"]) == (3e-05, None)
    assert small.git("status", "--porcelain") == ""
    events = [json.loads(line) for line in small.http.get(f"/v1/jobs/{job}/log", params={"format": "jsonl"}).text.splitlines()]
    kinds = [event["type"] for event in events]
    assert kinds.count("metrics") == 2
    assert [event["epoch"] for event in events if event["type"] == "metrics"] == [1, 2]
    assert [event["stage"] for event in events if event["type"] == "stage"] == ["train", "evaluate"]
    text = small.http.get(f"/v1/jobs/{job}/log").text.splitlines()
    assert text.index("epoch 1") < text.index("epoch 2") < text.index("evaluated")
    half = events[len(events) // 2]["cursor"]
    rest = small.http.get(f"/v1/jobs/{job}/log", params={"format": "jsonl", "cursor": half})
    assert [json.loads(line) for line in rest.text.splitlines()] == events[len(events) // 2 + 1 :]
    assert rest.headers["X-Next-Cursor"] == events[-1]["cursor"]
    again = small.post("evaluate", {"train.dropout": None, "train.save_every": 60, "train.lr": 3e-05})
    assert (again.status_code, again.json()["id"]) == (200, job)


def test_an_experiment_is_pushed_to_a_git_remote_and_pulled_from_there_elsewhere(
    small: Small, worker: Callable[..., Any], tmp_path: Path
) -> None:
    def dvc(folder: Path, *command: str) -> str:
        done = subprocess.run([sys.executable, "-m", "dvc", *command], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    # A model that DVC keeps, and what both clones reach: a git remote, and one of DVC's.
    stages = (small.root / "dvc.yaml").read_text()
    (small.root / "dvc.yaml").write_text(stages.replace("    outs:\n", "    outs:\n      - weights\n", 1))
    with (small.root / "train.py").open("a") as script:
        script.write("Path(\"weights\").write_text(f\"weights of {params['train']['lr']}\")\n")
    dvc(small.root, "remote", "add", "-q", "-d", "store", str(tmp_path / "store"))
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(tmp_path / "remote.git")], check=True)
    small.git("add", "-A")
    small.git("commit", "-qm", "weights")
    small.git("remote", "add", "theirs", str(tmp_path / "remote.git"))
    small.git("push", "-q", "theirs", "main")
    worker(FINSIGHT_EXPERIMENTS_REMOTE="theirs")
    done = small.ended(small.post("evaluate", {"train.lr": 3e-05, "train.save_every": 1}).json()["id"], 240)
    assert (done["state"], done["error"], done["attempt"]) == ("succeeded", "", 1)
    subprocess.run(["git", "clone", "-q", str(tmp_path / "remote.git"), str(tmp_path / "other")], check=True)
    assert dvc(tmp_path / "other", "exp", "list", "--name-only", "origin").split() == [done["experiment"]]
    dvc(tmp_path / "other", "exp", "pull", "-q", "origin", done["experiment"])
    dvc(tmp_path / "other", "exp", "apply", "-q", done["experiment"])
    assert json.loads((tmp_path / "other/reports/metrics.json").read_text())["lr"] == done["metrics"]["lr"] == 3e-05
    assert (tmp_path / "other/weights").read_text() == "weights of 3e-05"


def test_experiments_of_workers_in_one_clone_never_meet(small: Small, worker: Callable[[], Any]) -> None:
    rates = {small.post("evaluate", {"train.lr": rate, "train.save_every": 200}).json()["id"]: rate for rate in (1e-05, 2e-05)}
    worker()
    worker()
    while any(small.http.get(f"/v1/jobs/{job}").json()["stage"] != "train" for job in rates):
        time.sleep(0.05)  # both are at it at once
    found = {job: small.ended(job) for job in rates}
    assert {job: (done["metrics"]["lr"], done["attempt"]) for job, done in found.items()} == {job: (rate, 1) for job, rate in rates.items()}
    assert not list((small.root / ".dvc/tmp/finsight-jobs").iterdir())


def test_a_copy_that_can_t_be_made_is_tried_again(small: Small, worker: Callable[[], Any]) -> None:
    (small.root / ".dvc/config.local").write_text("[cache\n")
    worker()
    job = small.post("train").json()["id"]
    while "no copy for the experiment: " not in (log := small.http.get(f"/v1/jobs/{job}/log").text):
        time.sleep(0.1)
    assert f"{small.root}: DVC can't read its configuration (" in log
    while (now := small.http.get(f"/v1/jobs/{job}").json())["state"] == "running":
        time.sleep(0.1)
    assert (now["state"], now["attempt"]) == ("queued", 1), "it may be mended, and is tried again"


def test_an_attempt_removes_the_copies_of_earlier_ones_alone(small: Small) -> None:
    copies = small.root / ".dvc/tmp/finsight-jobs"
    names = {
        "job-000000000000.1",
        "job-000000000000.2",
        "job-000000000000.3",
        "job-000000000000",
        "job-000000000001.1",
        "job-000000000002.1",
    }
    for name in names:
        (copies / name).mkdir(parents=True)
    os.utime(copies / "job-000000000002.1", (0, 0))  # nobody can be at work there any more
    small.jobs.work(Job("0" * 32, small.jobs.order(Kind.TRAIN, {}, "a", "of-a"), State.RUNNING, 2, 0.0))
    assert {path.name for path in copies.iterdir()} == names - {"job-000000000000.1", "job-000000000002.1"}


def test_a_run_that_leaves_no_experiment_of_its_name_is_tried_again(small: Small) -> None:
    """Else the job would show what was committed, or staged, as its own."""
    (small.root / "reports/train.json").write_text('{"lr": 0.5}')
    small.git("add", "-A")
    small.git("commit", "-qm", "a report")
    job = Job("0" * 32, small.jobs.order(Kind.TRAIN, {}, "a", "of-a"), State.RUNNING, 1, 0.0)
    outcome = small.jobs.work(job).found()
    assert (outcome.ending, outcome.error) == (Ending.BROKEN, "`dvc exp run` ended well, and there is no experiment job-000000000000")


@pytest.mark.long
def test_a_worker_killed_in_the_middle_leaves_nothing_and_its_experiment_is_made_once(small: Small, worker: Callable[[], Any]) -> None:
    small.queue.close()
    small.queue = RedisQueue(small.redis)
    first = worker()
    job = small.post("train", {"train.save_every": 100}).json()["id"]
    while "epoch 1" not in small.http.get(f"/v1/jobs/{job}/log").text:
        time.sleep(0.05)
    first.kill()
    first.wait()
    # The lease of 30 s is not waited for: its end is brought about.
    small.queue._redis.zadd("{jobs}:leases", {job: 0})
    worker()
    while small.http.get(f"/v1/jobs/{job}").json()["attempt"] != 1 or small.http.get(f"/v1/jobs/{job}").json()["state"] != "queued":
        time.sleep(0.05)
    small.queue._redis.zadd("{jobs}:queue", {job: 0})  # nor the pause
    done = small.ended(job)
    assert (done["state"], done["attempt"]) == ("succeeded", 2)
    assert len(small.git("for-each-ref", "refs/exps").splitlines()) == 1
    assert not list((small.root / ".dvc/tmp/finsight-jobs").iterdir())


@pytest.mark.long
def test_cancelling_over_rest(small: Small, worker: Callable[[], Any]) -> None:
    worker()
    job = small.post("train", {"train.save_every": 3000}).json()["id"]
    while "epoch 1" not in small.http.get(f"/v1/jobs/{job}/log").text:
        time.sleep(0.05)
    answer = small.http.delete(f"/v1/jobs/{job}")
    assert (answer.status_code, answer.json()["state"]) == (202, "running")
    assert small.ended(job)["state"] == "cancelled"
    assert small.git("for-each-ref", "refs/exps") == ""
    assert small.http.delete(f"/v1/jobs/{job}").json()["state"] == "cancelled"


@pytest.mark.parametrize(
    ("kind", "parameters", "says"),
    [
        ("train", {"train.lr": "x"}, "train.lr: got 'x'; input should be a valid number"),
        ("train", {"train.lr": -1.0}, "train.lr: got -1.0; "),
        ("train", {"train.rl": 1.0}, "train.rl: unknown key; allowed: "),
        ("train", {"train.lr.x": 1.0}, "train.lr.x: unknown key, or a section"),
        ("train", {"train": 1}, "train: unknown key, or a section"),
        ("train", {"corpora.starter.path": "/etc/passwd"}, "corpora.starter.path: can't be set for train; allowed: ingest.corpora, "),
        ("train", {"backbones.minilm.folder": "/etc"}, "backbones.minilm.folder: can't be set for train"),
        ("train", {"ingest.max_quarantined": 1.0}, "ingest.max_quarantined: can't be set"),
        ("train", {"train.backbone": "/etc"}, "train.backbone: got '/etc', expected a name under backbones: minilm"),
        ("train", {"train.teacher": "https://example.org/x"}, "train.teacher: got 'https://example.org/x', expected a name"),
        ("train", {"train.launch.rendezvous": "evil:1"}, "train.launch.rendezvous: can't be set"),
        ("train", {"train.stream.shards": "s3://another/prefix"}, "train.stream.shards: can't be set"),
        ("train", {"prepare.workers": 1000}, "prepare.workers: can't be set"),
        ("train", {"prepare.engine": "ray"}, "prepare.engine: can't be set"),
        ("train", {"evaluate.seed": 1}, "evaluate.seed: can't be set for train"),
        ("train", {"ingest.corpora": ["nothing"]}, "ingest.corpora: 'nothing' is not under corpora"),
        ("train", {"ingest.corpora": ["a\\"]}, "ingest.corpora: got a string with a backslash"),
        ("train", {"ingest.corpora": ["${oc.env:HOME}"]}, "ingest.corpora: got a string with ${"),
        ("evaluate", {"evaluate.slices.x": None}, "evaluate.slices.x: can't be set"),
        ("register", {"register.model": "theirs"}, "register.model: can't be set"),
        ("register", {"register.commercial_aliases": []}, "register.commercial_aliases: can't be set"),
        ("tune", {"tune.trials": 0}, "tune.trials: got 0"),
        ("tune", {"train.lr": 1.0}, "train.lr: can't be set for tune; allowed: tune.trials"),
        ("score", {"input": "../../etc/passwd"}, "input: expected the id of an object"),
        ("score", {"input": "/etc/passwd", "text": "t"}, "input: expected the id of an object"),
        ("score", {"output": "x"}, "output: no parameter of score"),
        ("score", {"input": f"{'0' * 64}.csv", "text": "--graph"}, "text: expected the name of a column"),
        ("nothing", {}, "body.kind: "),
        ("train", {"\ud800": 1}, "body.parameters."),
        ("train", {"ingest.corpora": ["\ud800"]}, "ingest.corpora: got a string"),
        ("train", {"train.lr": {"a": 1}}, "body.parameters.train.lr"),
    ],
)
def test_what_may_not_be_set_is_refused_in_one_line(small: Small, kind: str, parameters: dict[str, Any], says: str) -> None:
    answer = small.post(kind, parameters)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(says)
    assert "\n" not in answer.json()["detail"]
    assert small.http.get("/v1/jobs").json() == {"jobs": [], "next": ""}


def test_a_tree_that_an_experiment_would_not_see_is_refused_with_the_reason(small: Small) -> None:
    params = YAML().load(small.root / "params.yaml")
    folder = small.root / "data/external/mine"
    write_csv(folder / "rows.csv", starter_rows(10))
    params["corpora"]["mine"] = {**params["corpora"]["starter"], "path": "data/external/mine"}
    YAML().dump(params, small.root / "params.yaml")
    answer = small.post("train")
    assert (answer.status_code, answer.json()["detail"].split(";")[0]) == (409, "params.yaml: changed and not committed")
    small.git("commit", "-qam", "a corpus")
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "data/external/mine"], cwd=small.root, check=True)
    answer = small.post("train", {"ingest.corpora": ["starter", "mine"]})
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith("corpus mine: data/external/mine.dvc is not committed, so no experiment would see its files")
    assert small.post("train").status_code == 201
    (small.root / ".dvc/config").write_text("[core]\n    autostage = true\n")
    assert small.post("train").json()["detail"].startswith(".dvc/config: changed and not committed; ")
    small.git("checkout", "-q", ".dvc/config")
    small.git("add", "data/external")
    staged = small.post("train", {"ingest.corpora": ["starter", "mine"]})
    assert (staged.status_code, "mine.dvc: changed and not committed" in staged.json()["detail"]) == (409, True)
    small.git("commit", "-qm", "the corpus")
    assert small.post("train", {"ingest.corpora": ["starter", "mine"]}).status_code == 201


def test_a_job_whose_repository_has_moved_on_says_so(small: Small, worker: Callable[[], Any]) -> None:
    job = small.post("train").json()["id"]
    small.git("commit", "-q", "--allow-empty", "-m", "on")
    worker()
    done = small.ended(job)
    assert (done["state"], done["attempt"]) == ("failed", 1)
    assert done["error"].startswith("the repository has moved from ")


def test_other_tenants_see_nothing_and_guests_may_only_look(small: Small) -> None:
    job = small.post("train").json()["id"]
    theirs = {"X-API-Key": "b"}
    for method, path in (("GET", ""), ("GET", "/log"), ("DELETE", "")):
        assert small.http.request(method, f"/v1/jobs/{job}{path}", headers=theirs).status_code == 404
    assert small.http.get("/v1/jobs", headers=theirs).json()["jobs"] == []
    assert small.post("train", **theirs).json()["id"] != job
    guest = {"X-API-Key": "guests"}
    assert small.post("train", **guest).status_code == 403
    assert small.http.delete(f"/v1/jobs/{job}", headers=guest).status_code == 403
    assert small.http.get("/v1/jobs", headers=guest).status_code == 200
    assert small.http.get(f"/v1/jobs/{'0' * 32}").status_code == 404
    assert small.http.get("/v1/jobs/..%2f..%2fx").status_code in (404, 422)


def test_limits_and_keys(small: Small) -> None:
    first = small.post("train", {"train.seed": 1}, **{"Idempotency-Key": "k"})
    assert small.post("train", {"train.seed": 1}, **{"Idempotency-Key": "k"}).json() == first.json()
    reused = small.post("train", {"train.seed": 2}, **{"Idempotency-Key": "k"})
    assert (reused.status_code, reused.json()["detail"].split(":")[0]) == (422, "Idempotency-Key")
    small.post("train", {"train.seed": 3})
    busy = small.post("train", {"train.seed": 4})
    assert (busy.status_code, busy.json()["type"], busy.headers["Retry-After"]) == (429, "urn:finsight:problem:too-many-jobs", "60")
    small.post("train", **{"X-API-Key": "b"})
    full = small.post("train", **{"X-API-Key": "c"})
    assert (full.status_code, full.json()["type"], full.headers["Retry-After"]) == (503, "urn:finsight:problem:queue-full", "60")
    pages, cursor = [], ""
    while True:
        page = small.http.get("/v1/jobs", params={"limit": 1, "cursor": cursor, "state": "queued"}).json()
        pages += [job["parameters"]["train.seed"] for job in page["jobs"]]
        if not (cursor := page["next"]):
            break
    assert pages == [3, 1]
    assert small.http.get("/v1/jobs", params={"kind": "tune"}).json()["jobs"] == []
    assert small.http.get("/v1/jobs", params={"cursor": "x"}).status_code == 422


def test_values_arrive_in_params_yaml_as_they_were_given(repository: Path, tmp_path: Path) -> None:
    values = {"train.lr": 1e-07, "ingest.corpora": ["a,b", "it's {x}=$y", "no"], "train.dropout": None, "train.soft_labels": False}
    values |= {"validate.language": "null", "train.seed": 12, "train.determinism": "[1]"}
    shutil.copytree(repository, tmp_path / "small")
    options = [word for key, value in values.items() for word in ("-S", f"{key}={hydra(value)}")]
    run = [sys.executable, "-m", "dvc", "exp", "run", "-q", "--temp", "-n", "x", *options]
    subprocess.run(run, cwd=tmp_path / "small", env=plain_environment(PYTHONPATH=str(SRC)), check=True)
    git = ["git", "for-each-ref", "--format=%(objectname)", "refs/exps"]
    commit = subprocess.run(git, cwd=tmp_path / "small", capture_output=True, text=True, check=True).stdout.split()[0]
    text = subprocess.run(["git", "show", f"{commit}:params.yaml"], cwd=tmp_path / "small", capture_output=True, text=True).stdout
    content = YAML(typ="safe").load(text)
    for key, value in values.items():
        section, _, name = key.partition(".")
        assert content[section][name] == value


def test_an_order_is_the_same_whatever_the_order_of_its_parameters() -> None:
    one = Order(Kind.TRAIN, {"a": 1, "b": [2]}, "t", "me", "r", {"x": "1", "y": "2"})
    assert one.content == Order(Kind.TRAIN, {"b": [2], "a": 1}, "t", "another", "r", {"y": "2", "x": "1"}).content
    assert one.content != Order(Kind.TRAIN, {"b": [2], "a": 1}, "u", "me", "r", {"y": "2", "x": "1"}).content
    assert one.content != Order(Kind.TRAIN, {"b": [2], "a": 1}, "t", "me", "s", {"y": "2", "x": "1"}).content


def test_serve_brings_a_redis_and_a_worker_which_scores_and_is_started_again(
    copy_of: Callable[[Project], Project], finished: Project
) -> None:
    project = copy_of(finished)
    table = write_csv(project.root / "texts.csv", starter_rows(50)).read_bytes()
    port = free_port()
    environment = {**os.environ, **project.env, "FINSIGHT_API_KEY": "a-key-for-tests", "PYTHONPATH": str(SRC)}
    command = [sys.executable, "-m", "finsight.cli", "serve", "--port", str(port)]
    process = subprocess.Popen(command, cwd=project.root, env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}/readyz", process)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": "a-key-for-tests"}, timeout=60) as http:

            def scored(table: bytes) -> dict[str, Any]:
                job = http.post("/v1/score", content=table, headers={"Content-Type": "text/csv"}).json()["id"]
                end = time.monotonic() + 120
                while (found := http.get(f"/v1/jobs/{job}").json())["state"] in ("queued", "running"):
                    assert time.monotonic() < end, found
                    time.sleep(0.1)
                return dict(found)

            done = scored(table)
            assert (done["state"], done["error"], done["stage"], done["progress"]) == ("succeeded", "", "score", 1.0)
            rows = list(csv.DictReader(http.get(f"/v1/jobs/{done['id']}/result").text.splitlines()))
            asked = [row["text"] for row in starter_rows(50)]
            assert [row["text"] for row in rows] == asked
            predicted = http.post("/v1/predict", json={"texts": asked}).json()["predictions"]
            assert [row["predicted"] for row in rows] == [one["label"] for one in predicted]
            assert scored(table)["id"] == done["id"]
            (leash,) = leashes(process.pid, "worker")
            os.kill(children(leash, "finsight.cli")[0], signal.SIGKILL)
            # By the next worker; what is wrong stands too far down to be seen before.
            wrong = scored(b"id,text\n" + b"1,x\n" * 200 + b"2\n")
            assert (wrong["state"], wrong["attempt"]) == ("failed", 1)
            assert wrong["error"] == "input.csv:202: expected 2 columns, got 1; mend the line"
        below = [*leashes(process.pid, "worker"), *leashes(process.pid, "redis-server")]
        assert len(below) == 2
        process.kill()  # whatever ends the service ends its worker and its Redis
        end = time.monotonic() + 5
        while any(Path(f"/proc/{one}").exists() for one in below):
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()


def leashes(parent: int, what: str) -> list[int]:
    return [one for one in children(parent, "leash.py") if what in Path(f"/proc/{one}/cmdline").read_text()]


def children(parent: int, word: str) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent and word in (stat.parent / "cmdline").read_text():
                found.append(int(stat.parent.name))
        except OSError:
            continue
    return found
