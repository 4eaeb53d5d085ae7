"""Registering, promoting and fetching through the commands, against SQLite and live servers that die."""

import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyrage
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mlflow import MlflowClient

from conftest import Project
from finsight.adapters.mlflow_registry import MlflowRegistry
from finsight.adapters.outbox import FileOutbox
from finsight.bundle import bundle_digest
from servers import free_port, serving, wait_for

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def two(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a champion, and a challenger of another seed."""
    root = tmp_path_factory.mktemp("two") / "project"
    shutil.copytree(finished.root, root)
    project = Project(root, finished.backbone, {**finished.env, "MLFLOW_TRACKING_URI": f"sqlite:///{root}/two.db"})
    project.run("register")
    project.set(train__seed=7)
    project.run("train", "evaluate", "export", "report", "register")
    return project


def held(project: Project) -> dict[str, int]:
    versions = MlflowRegistry(project.env["MLFLOW_TRACKING_URI"], "finsight").versions()
    return {alias: v.number for v in versions for alias in v.aliases}


def test_versions_are_listed_shown_and_compared(two: Project) -> None:
    lines = [json.loads(line) for line in two.cli("models", "list", "--json").splitlines()]
    assert [(line["version"], line["aliases"], line["signature"]) for line in lines] == [
        (1, ["champion"], "development"),
        (2, ["challenger"], "development"),
    ]
    metrics = two.json("metrics.json")
    assert (lines[1]["accuracy"], lines[1]["macro_f1"]) == (f"{metrics['accuracy']:.4f}", f"{metrics['macro_f1']:.4f}")
    assert len(two.cli("models", "list").splitlines()) == 3
    shown = json.loads(two.cli("models", "show", "challenger", "--json"))
    assert shown["bundle"] == bundle_digest(two.root / "models/bundle")
    assert f"macro-F1 {metrics['macro_f1']:.3f}" in shown["description"]
    assert [line["action"] for line in shown["log"]] == ["register", "register"]
    assert "finsight version 2" in two.cli("models", "diff", "1", "2")
    assert two.cli("models", "diff", "champion", "challenger") == two.cli("models", "diff", "1", "2")


def test_a_version_is_promoted_rolled_back_and_the_log_says_so(two: Project) -> None:
    before = len(two.cli("models", "log").splitlines())
    try:
        two.set(gates__primary="better")
        error = two.cli("models", "promote", "challenger", ok=False)
        assert "version 2 is not promoted over version 1: gates.primary: macro_f1 has to be better" in error
        assert "--force needs --why" in two.cli("models", "promote", "2", "--force", ok=False)
        assert held(two) == {"champion": 1, "challenger": 2}
        two.cli("models", "promote", "2", "--force", "--why", "a drill")
        assert held(two) == {"champion": 2, "challenger": 2}
        assert "version 2 is challenger, champion, so it is not deleted" in two.cli("models", "delete", "2", "--yes", ok=False)
        assert "version 1 is champion again, instead of 2" in two.cli("models", "rollback", "--why", "the drill is over")
        assert held(two) == {"champion": 1, "challenger": 2}
    finally:
        two.set(gates__primary="not worse")
    log = two.cli("models", "log").splitlines()[before:]
    assert ["promote champion 1 → 2" in log[0], "a drill; forced over gates.primary" in log[0]] == [True, True]
    assert log[1].endswith("rollback champion 2 → 1  the drill is over")


def test_a_version_is_used_by_its_name_in_the_registry(two: Project) -> None:
    import finsight
    from finsight.adapters.bundle_classifier import BundleClassifier

    texts = ["Operating profit rose.", "Sales fell."]
    here = json.loads(two.cli("predict", "--bundle", "models:/finsight@challenger", "--json", texts[0]))
    mine = {p.label: p for p in finsight.load(two.root / "models/bundle").predict(texts)[:1]}
    assert here["label"] in mine
    by_number = two.cli("predict", "--bundle", "models:/finsight/2", *texts)
    assert by_number == two.cli("predict", *texts)
    assert "models:/finsight: expected models:/NAME@ALIAS" in two.cli("predict", "--bundle", "models:/finsight", "x", ok=False)
    assert "no such version; there: 1 champion, 2 challenger" in two.cli("predict", "--bundle", "models:/finsight@best", "x", ok=False)
    kept = Path(two.env["FINSIGHT_CACHE"]) / "models" / bundle_digest(two.root / "models/bundle")
    assert kept.name == bundle_digest(kept / "bundle")
    assert BundleClassifier(kept / "bundle").labels


def test_mlflow_itself_loads_a_version(two: Project) -> None:
    code = (
        "import json, mlflow, sys, pandas as pd\n"
        "model = mlflow.pyfunc.load_model('models:/finsight@challenger')\n"
        "print(json.dumps(model.predict(pd.DataFrame({'text': ['Operating profit rose.']})).iloc[0].to_dict()))"
    )
    environment = {**os.environ, **two.env, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    ours = json.loads(two.cli("predict", "--json", "Operating profit rose."))
    assert found["label"] == ours["label"]
    assert found["prob_neutral"] == pytest.approx(ours["probabilities"]["neutral"], abs=1e-5)


def test_download_gives_the_bundle_with_its_provenance(two: Project) -> None:
    two.cli("models", "download", "1", "down")
    assert "signed with this clone's development key" in two.cli("verify", "down/bundle")
    assert "holds something already" in two.cli("models", "download", "1", "down", ok=False)
    content = bytearray((two.root / "down/bundle/model.fp32.onnx").read_bytes())
    content[1000] ^= 1
    (two.root / "down/bundle/model.fp32.onnx").write_bytes(content)
    assert "model.fp32.onnx: SHA-256 is" in two.cli("verify", "down/bundle", ok=False)


@pytest.mark.long
def test_what_is_not_for_commercial_use_says_so_and_gets_no_commercial_alias(
    finished: Project, copy_of: Callable[[Project], Project]
) -> None:
    project = copy_of(finished)
    project.env["MLFLOW_TRACKING_URI"] = f"sqlite:///{project.root}/nc.db"
    project.set(corpora__starter__license="CC-BY-NC-4.0")
    project.run("export", "report", "register")
    assert json.loads((project.root / "models/bundle/bundle.json").read_text())["licenses"]["corpus starter"] == "CC-BY-NC-4.0"
    assert "**Not for commercial use**: corpus starter (CC-BY-NC-4.0)." in (project.root / "reports/model_card.md").read_text()
    assert "Not for commercial use</b>: corpus starter (CC-BY-NC-4.0)." in (project.root / "reports/report.html").read_text()
    assert json.loads(project.cli("models", "show", "1", "--json"))["non_commercial"] == "corpus starter (CC-BY-NC-4.0)"
    for force in ((), ("--force", "--why", "we want it")):
        error = project.cli("models", "promote", "1", "--alias", "production", *force, ok=False)
        assert "version 1 is not for commercial use, which production is (register.commercial_aliases)" in error
    assert held(project) == {"champion": 1}
    project.env["MLFLOW_TRACKING_URI"] = f"sqlite:///{project.root}/other.db"
    project.set(register__commercial_aliases=["champion"])
    project.run("register")
    assert project.json("registration.json")["aliases"] == ["challenger"]


class Server:
    """An MLflow server that can be killed and started again with what it had."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{self.folder}/m.db", "--workers", "1"]
        command += ["--port", str(self.port), "--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True)
        wait_for(f"{self.uri}/health", self.process)

    def kill(self) -> None:
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)


@pytest.mark.long
def test_a_registration_waits_while_the_server_is_away_and_is_sent_once(finished: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(finished)
    server = Server(project.root)
    project.env["MLFLOW_TRACKING_URI"] = server.uri
    shutil.rmtree(project.root / "models/provenance")
    with project.start("register") as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert "warning: MLflow at" in err
    assert "Connection refused" in err
    assert "waits in .outbox" in out
    assert project.json("registration.json")["version"] is None
    assert "it waits in .outbox" in project.cli("summary")
    assert "signed with this clone's development key" in project.cli("verify")
    assert "Connection refused" in project.cli("registry", "flush", ok=False)
    (waiting,) = (project.root / ".outbox").iterdir()
    assert waiting.stat().st_mode & 0o777 == 0o600
    try:
        server.start()
        assert "version 1 ['champion']" in project.cli("registry", "flush")
        assert list((project.root / ".outbox").iterdir()) == []
        assert "nothing waits" in project.cli("registry", "flush")
        project.run("register")
        found = project.json("registration.json")
        assert (found["version"], found["aliases"]) == (1, ["champion"])
        # What was written while the server was away named no run; the run's own statement has taken its place.
        assert json.loads(project.cli("lineage", "--json"))["predicate"]["runDetails"]["metadata"]["invocationId"] == found["run"]
        assert "reports and inputs are what the statement says" in project.cli("verify", "champion")
    finally:
        server.kill()


def test_a_server_that_refuses_us_fails_the_stage_and_nothing_is_lost(finished: Project, copy_of: Callable[[Project], Project]) -> None:
    """Waiting would not help, and in a CI job the outbox goes with the machine."""

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(401)

        def do_POST(self) -> None:
            self.send_error(401)

        def log_message(self, *args: object) -> None:
            pass

    project = copy_of(finished)
    with serving(Refusing) as project.env["MLFLOW_TRACKING_URI"]:
        error = project.fail("register")
    assert "the server refuses the credentials (HTTP 401); set MLFLOW_TRACKING_USERNAME" in error
    assert "HTTP 401" in project.json("registration.json")["waits"]
    project.env["MLFLOW_TRACKING_URI"] = f"sqlite:///{project.root}/other.db"
    assert "version 1 ['champion']" in project.cli("registry", "flush")


@pytest.mark.long
@pytest.mark.parametrize("moment", ["reports", "model", "provenance"])
def test_a_server_killed_while_it_registers_ends_in_one_version(
    moment: str, finished: Project, copy_of: Callable[[Project], Project]
) -> None:
    project = copy_of(finished)
    server = Server(project.root)
    project.env["MLFLOW_TRACKING_URI"] = server.uri
    server.start()
    try:
        process = project.start("register")
        killer = threading.Thread(target=kill_when_there, args=(server, moment))
        killer.start()
        _, err = process.communicate(timeout=300)
        killer.join()
        assert process.returncode == 0, err
        server.start()
        if project.json("registration.json").get("waits"):
            project.cli("registry", "flush")
        project.run("register")
        (version,) = MlflowRegistry(server.uri, "finsight").versions()
        assert version.aliases == {"champion"}
        project.cli("verify", "1")
        assert list((project.root / ".outbox").glob("*")) == []
    finally:
        server.kill()


def kill_when_there(server: Server, artifact: str) -> None:
    """Kill the server once a file of an artifact has come in."""
    end = time.monotonic() + 120
    while time.monotonic() < end and not list(server.folder.glob(f"artifacts/*/*/artifacts/{artifact}/*")):
        time.sleep(0.01)
    server.kill()


def test_one_that_can_t_be_sent_does_not_keep_others_from_being_sent(finished: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(finished)
    outbox = project.root / ".outbox"
    project.env["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    project.run("register")
    (good,) = outbox.iterdir()
    (outbox / "0000.tar").write_bytes(b"x")
    os.utime(outbox / "0000.tar", (0, 0))
    FileOutbox(outbox).put("0001", [], {"of": "another version"})
    os.utime(outbox / "0001.tar", (1, 1))
    project.env["MLFLOW_TRACKING_URI"] = f"sqlite:///{project.root}/other.db"
    error = project.cli("registry", "flush", ok=False)
    assert "0000.tar: can't be read" in error
    assert "0001: put into the outbox by another finsight" in error
    assert not good.exists()
    assert held(project) == {"champion": 1}
    with project.start("register") as process:
        _, err = process.communicate()
    assert process.returncode == 0
    assert "warning: 0000 waits on" in err
    assert project.json("registration.json")["version"] == 1


@pytest.mark.long
def test_an_experiment_leaves_a_registration_that_waits(finished: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(finished)
    project.env["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    project.run("register")
    project.env["DVC_EXP_NAME"] = "warm-lamp"
    project.run("register")
    project.env["MLFLOW_TRACKING_URI"] = f"sqlite:///{project.root}/other.db"
    project.run("register")
    assert project.json("registration.json")["version"] is None
    del project.env["DVC_EXP_NAME"]
    assert "version 1 ['champion']" in project.cli("registry", "flush")
    assert list((project.root / ".outbox").iterdir()) == []


@pytest.mark.long
def test_an_experiment_leaves_a_registration_that_it_cannot_read(finished: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(finished)
    project.env |= {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "FINSIGHT_ENCRYPTION_KEY": str(pyrage.x25519.Identity.generate())}
    project.run("register")
    key = project.env.pop("FINSIGHT_ENCRYPTION_KEY")
    project.env["DVC_EXP_NAME"] = "warm-lamp"
    project.run("register")
    del project.env["DVC_EXP_NAME"]
    project.env |= {"MLFLOW_TRACKING_URI": f"sqlite:///{project.root}/other.db", "FINSIGHT_ENCRYPTION_KEY": key}
    assert "version 1 ['champion']" in project.cli("registry", "flush")


@pytest.mark.long
def test_a_registration_that_can_never_be_sent_does_not_wait(finished: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(finished)
    project.env["MLFLOW_TRACKING_URI"] = f"sqlite:///{project.root}/other.db"
    project.run("register")
    MlflowClient(project.env["MLFLOW_TRACKING_URI"]).delete_run(project.json("registration.json")["run"])
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    project.env["FINSIGHT_SIGNING_KEY"] = pem.decode()  # its statement takes the place of the one that the run has
    line = project.fail("register")
    assert "must be in the 'active' state" in line
    assert "mlflow runs restore --run-id" in line


@pytest.mark.long
def test_registering_an_older_one_again_moves_no_alias(two: Project, tmp_path: Path) -> None:
    before = held(two), two.cli("models", "log")
    old = Project(tmp_path / "old", two.backbone, two.env)
    two.cli("models", "download", "1", str(old.root / "models"))
    for name in ("reports", "params.yaml", "dvc.yaml"):
        path = two.root / name
        (shutil.copytree if path.is_dir() else shutil.copy)(path, old.root / name)
    old.run("register")
    assert old.json("registration.json")["version"] == 1
    assert (held(two), two.cli("models", "log")) == before


@pytest.mark.long
def test_a_version_in_the_cache_is_fetched_again_when_it_was_signed_anew(finished: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(finished)
    project.env["MLFLOW_TRACKING_URI"] = f"sqlite:///{project.root}/other.db"
    project.run("register")
    command = ("predict", "--bundle", "models:/finsight@champion", "Sales rose.")
    project.cli(*command)
    kept = project.root / "cache/models" / bundle_digest(project.root / "models/bundle")
    (kept / "bundle/model.fp32.onnx").write_bytes(b"x")
    project.cli(*command)
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    project.env["FINSIGHT_SIGNING_KEY"] = pem.decode()
    project.run("register")
    project.env["FINSIGHT_REQUIRE_SIGNATURE"] = "release"
    project.cli(*command)


@pytest.mark.long
def test_many_at_once_end_in_one_version_and_one_champion(
    finished: Project, tmp_path: Path, mlflow_server: str, request: pytest.FixtureRequest
) -> None:
    projects = []
    for i in range(3):
        root = tmp_path / str(i)
        shutil.copytree(finished.root, root)
        shutil.rmtree(root / "models/provenance")
        project = Project(root, finished.backbone, {**finished.env, "MLFLOW_TRACKING_URI": mlflow_server})
        project.set(register__model="many at once")
        projects.append(project)
    processes = [project.start("register") for project in projects]
    for process in processes:
        _, err = process.communicate(timeout=400)
        assert process.returncode == 0, err
    registry = MlflowRegistry(mlflow_server, "many at once")
    (version,) = registry.versions()
    assert version.aliases == {"champion"}
    assert {project.json("registration.json")["version"] for project in projects} == {version.number}
    command = [sys.executable, "-m", "finsight.cli", "models", "promote", "1", "--alias", "production"]
    racing = [subprocess.Popen(command, cwd=p.root, env={**os.environ, **p.env}, stdout=subprocess.DEVNULL) for p in projects]
    assert [process.wait(120) for process in racing] == [0, 0, 0]
    (version,) = registry.versions()
    assert version.aliases == {"champion", "production"}
