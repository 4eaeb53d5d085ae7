"""What the chart makes, at work: each pod's own command, user, environment and volumes, over a read-only root, from the first training to a
prediction. No engine and no cluster: what is not run is in docs/kubernetes.md."""

import functools
import http.server
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from charts import Manifest, documents, helm, tools, yaml
from clones import Clone, copy_tree
from conftest import LOOSE_INT8, Project, starter_rows, write_csv
from podrun import Cluster, needs_namespaces, own_network
from servers import S3_KEY, S3_SECRET, serve_s3, serving

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
KEY, PASSWORD = "a-key-of-an-admin-for-tests", "0123456789abcdef"
API, WORKER, TRAINING = "Deployment/finsight-api", "Deployment/finsight-worker", "Job/finsight-training-1"
REDIS, MLFLOW = "StatefulSet/finsight-redis", "StatefulSet/finsight-mlflow"
CORPUS = "data/external/more.csv"
SECRETS = {
    "FINSIGHT_API_KEY": KEY,
    "REDIS_PASSWORD": PASSWORD,
    "FINSIGHT_REDIS_URL": f"redis://:{PASSWORD}@finsight-redis:6379/0",
    "AWS_ACCESS_KEY_ID": S3_KEY,
    "AWS_SECRET_ACCESS_KEY": S3_SECRET,
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Clone:
    """The tree with 240 rows, the tiny backbone and a corpus that DVC tracks; in `served`, beside it, as git servers have it."""
    run = copy_tree(tmp_path_factory.mktemp("tree") / "finsight", leave_out=("data/starter/", "tests/", "docs/", "bench/"))
    write_csv(run.root / "data/starter/rows.csv", starter_rows(240))
    shutil.copytree(tiny_backbone, run.root / "tiny")
    Project(run.root, tiny_backbone).set(
        train__backbone="tiny", train__epochs=1, train__lr=0.01, train__threads=1, export__gates=LOOSE_INT8
    )
    (run.root / CORPUS).write_text("text,label\nProfit rose.,positive\n")
    run("dvc", "add", "-q", CORPUS)
    run("git", "add", "-A")
    run("git", "add", "-f", f"{CORPUS}.dvc")
    run("git", "commit", "-qm", "first")
    bare = run.root.parent / "served/finsight.git"
    run("git", "clone", "-q", "--bare", ".", str(bare))
    subprocess.run(["git", "update-server-info"], cwd=bare, check=True)
    return run


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def cluster(repository: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Redis and MLflow of the chart, beside an S3 server and a git server."""
    needs_namespaces()
    folder = tmp_path_factory.mktemp("cluster")
    folder.chmod(0o755)
    (folder / "buckets/finsight").mkdir(parents=True)
    tools()  # while there is a network
    with own_network():
        handler = functools.partial(Quiet, directory=str(repository.root.parent / "served"))
        with serve_s3(folder / "buckets") as s3, serving(handler) as git:  # type: ignore[arg-type]
            pushed(repository, s3)
            above = {
                "repository": {"url": f"{git}/finsight.git"},
                "s3": {"endpoint": s3},
                "training": {"enabled": True},
                "settings": {"FINSIGHT_DRAIN_SECONDS": "1"},
                "secrets": {"files": ["FINSIGHT_API_KEY", "FINSIGHT_REDIS_URL"]},
                "worker": {"bundle": "models:/finsight@champion"},
            }
            found = Cluster(folder, rendered(above), SECRETS, above)
            try:
                redis, mlflow = found.start(REDIS, "redis"), found.start(MLFLOW, "mlflow")
                if shutil.which("redis-cli"):
                    found.wait(REDIS, redis)
                found.wait(MLFLOW, mlflow)
                yield found
            finally:
                found.close()


def rendered(above: dict[str, Any]) -> list[Manifest]:
    """What the chart makes of values."""
    made = helm(above)
    assert not made["refused"], made["refused"]
    return [one for name, text in made["files"].items() if name.endswith(".yaml") for one in documents(text)]


def pushed(repository: Clone, s3: str) -> None:
    """Send the corpus to where the chart says that it is."""
    for name, value in {"url": "s3://finsight/dvc", "endpointurl": s3}.items():
        repository("dvc", "remote", "modify", "-q", "--local", "minio", name, value)
    repository.env |= {"AWS_ACCESS_KEY_ID": S3_KEY, "AWS_SECRET_ACCESS_KEY": S3_SECRET}
    repository("dvc", "push", "-q", "-r", "minio", f"{CORPUS}.dvc")


@pytest.fixture(scope="module")
def trained(cluster: Cluster) -> Cluster:
    """After the training's pod has ended well."""
    for name in ("clone", "training"):
        running = cluster.start(TRAINING, name)
        assert running.ends(600) == 0, running.said()
    return cluster


def mlflow(what: str, host: str, **asked: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:5000/api/2.0/mlflow/{what}", params=asked, headers={"Host": host})


def test_training_pushes_and_registers(trained: Cluster) -> None:
    lock = yaml(trained.folder / "Job-finsight-training-1/volumes/work/finsight/dvc.lock")
    (bundle,) = [out["md5"] for out in lock["stages"]["export"]["outs"] if out["path"] == "models/bundle"]
    assert (trained.folder / f"buckets/finsight/dvc/files/md5/{bundle[:2]}/{bundle[2:]}").is_file(), "`dvc push` sends what was made"
    asked = httpx.get(
        "http://127.0.0.1:5000/api/2.0/mlflow/registered-models/get", params={"name": "finsight"}, headers={"Host": "finsight-mlflow:5000"}
    )
    assert {one["alias"]: one["version"] for one in asked.json()["registered_model"]["aliases"]} == {"champion": "1"}
    assert list((trained.folder / "buckets/finsight/mlflow").rglob("*.onnx"))


def test_two_pods_of_an_indexed_job_train_one_model(cluster: Cluster) -> None:
    """The second comes later, has a clone and a state of its own, and leaves all outputs to the first."""
    machines = Cluster(cluster.folder / "machines", [], SECRETS)
    machines.folder.mkdir()
    machines.manifests = rendered({**cluster.values, "training": {"enabled": True, "nodes": 2}})
    try:
        clones = [machines.start(TRAINING, "clone", index) for index in (0, 1)]
        assert [clone.ends(300) for clone in clones] == [0, 0], [clone.said() for clone in clones]
        pods = [machines.start(TRAINING, "training", index) for index in (0, 1)]
        assert [pod.ends(900) for pod in pods] == [0, 0], [pod.said() for pod in pods]
    finally:
        machines.close()
    work = machines.folder / "Job-finsight-training-1/volumes/work"
    assert {one.name for one in work.iterdir()} == {"node-0", "node-1", "state-0", "state-1"}
    assert json.loads((work / "node-0/finsight/reports/train.json").read_text())["processes"] == 2
    assert not (work / "node-1/finsight/models/checkpoint").exists()
    lock = yaml(work / "node-0/finsight/dvc.lock")
    (bundle,) = [out["md5"] for out in lock["stages"]["export"]["outs"] if out["path"] == "models/bundle"]
    assert (cluster.folder / f"buckets/finsight/dvc/files/md5/{bundle[:2]}/{bundle[2:]}").is_file(), "the first goes on to the end"


def test_mlflow_answers_to_its_names_alone(cluster: Cluster) -> None:
    asked = functools.partial(
        httpx.get, "http://127.0.0.1:5000/api/2.0/mlflow/experiments/get-by-name", params={"experiment_name": "Default"}
    )
    assert asked(headers={"Host": "finsight-mlflow.finsight.svc:5000"}).status_code == 200
    assert asked(headers={"Host": "elsewhere.example"}).status_code == 403


def test_redis_wants_its_password_and_forgets_nothing(cluster: Cluster) -> None:
    from redis import AuthenticationError, Redis

    with Redis(port=6379) as stranger, pytest.raises(AuthenticationError):
        stranger.ping()
    with Redis(port=6379, password=PASSWORD) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("append*") | {"appendonly": "yes", "appendfsync": "always"} == client.config_get("append*")


def test_the_service_predicts_is_measured_and_ends(trained: Cluster, repository: Clone) -> None:
    clone = trained.start(API, "clone")
    assert clone.ends(120) == 0, clone.said()
    api, worker_clone = trained.start(API, "api"), trained.start(WORKER, "clone")
    trained.wait(API, api)
    trained.wait(API, api, "readinessProbe", 5)
    assert trained.probe(API, "livenessProbe")
    assert worker_clone.ends(120) == 0, worker_clone.said()
    assert (trained.folder / "Deployment-finsight-worker/volumes/work/finsight" / CORPUS).read_bytes() == (
        repository.root / CORPUS
    ).read_bytes()
    assert not trained.probe(WORKER, "livenessProbe")
    worker = trained.start(WORKER, "worker")
    trained.wait(WORKER, worker)
    assert trained.probe(WORKER, "livenessProbe")
    assert trained.probe(WORKER, "readinessProbe")
    with httpx.Client(base_url="http://127.0.0.1:8080", headers={"X-API-Key": KEY}, timeout=60) as client:
        answer = client.post("/v1/predict", json={"texts": ["Operating profit rose to EUR 13.1 mn."]})
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"]["version"] == 1
        _measured(client)
        _scored(client)
        _validated(client)
    assert 'finsight_job_attempts_total{kind="validate",outcome="succeeded"} 1.0' in httpx.get("http://127.0.0.1:9109/metrics").text
    assert worker.stop(30) == 0, worker.said()
    assert api.stop(60) == 0, api.said()


def _measured(client: httpx.Client) -> None:
    """As Prometheus does for the chart's ServiceMonitor: by OAuth 2.0, for a key that may read metrics; a stranger may not."""
    made = client.post("/v1/keys", json={"name": "prometheus", "roles": ["monitor"]}).json()
    stranger = {"X-Forwarded-For": "10.42.0.9"}
    with httpx.Client(base_url=str(client.base_url), headers=stranger) as other:
        assert other.get("/metrics").status_code == 401
        form = {"grant_type": "client_credentials", "scope": "metrics.read"}
        token = other.post("/v1/auth/token", data=form, auth=(made["id"], made["client_secret"])).json()["access_token"]
        text = other.get("/metrics", headers={"Authorization": f"Bearer {token}"}).text
    assert "finsight_texts_waiting" in text
    assert 'finsight_request_seconds_bucket{le="+Inf",method="POST",route="/v1/predict"}' in text


def _scored(client: httpx.Client) -> None:
    table = "headline\nProfit rose.\nProfit fell.\n"
    asked = client.post("/v1/score", params={"text": "headline"}, content=table, headers={"Content-Type": "text/csv"})
    assert asked.status_code == 202, asked.text
    job = _ended(client, asked.json()["id"])
    assert job["state"] == "succeeded", job
    assert len(client.get(f"/v1/jobs/{job['id']}/result").text.splitlines()) == 3


def _validated(client: httpx.Client) -> None:
    """The pipeline in the worker's clone."""
    asked = client.post("/v1/jobs", json={"kind": "validate"})
    assert asked.status_code == 201, asked.text
    job = _ended(client, asked.json()["id"])
    assert job["state"] == "succeeded", client.get(f"/v1/jobs/{job['id']}/log").text


def _ended(client: httpx.Client, job: str) -> dict[str, Any]:
    end = time.monotonic() + 180
    while True:
        answer = client.get(f"/v1/jobs/{job}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        if found["state"] not in ("queued", "running"):
            return found
        assert time.monotonic() < end, found
        time.sleep(1)  # or there would be more requests than one credential may make
