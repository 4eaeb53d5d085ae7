"""Fixtures: a project with two versions and an experiment, and the service at work in it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from conftest import Project
from servers import free_port, wait_for

KEY = "a-key-for-tests"
EXPERIMENT = "other-seed"


def _run(project: Project, *command: str) -> None:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *command] if command[0] == "dvc" else command, cwd=project.root, env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]


@pytest.fixture(scope="session")
def released(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in git with a champion, a challenger of another seed, and that one as an experiment; the champion lies in the workspace."""
    root = tmp_path_factory.mktemp("released") / "project"
    shutil.copytree(finished.root, root)
    project = Project(root, finished.backbone, {**finished.env, "MLFLOW_TRACKING_URI": f"sqlite:///{root}/released.db"})
    (root / "dvc.yaml").write_text("metrics:\n  - reports/metrics.json\nparams:\n  - params.yaml\n")
    (root / ".gitignore").write_text("/.service\n/cache\n/data\n/models\n/mlruns\n/*.db\n/*.db.lock\n")
    for command in ("git init -q -b main", "git config user.name t", "git config user.email t@example.org", "dvc init -q", "git add -A"):
        _run(project, *command.split())
    _run(project, "git", "commit", "-qm", "made")
    project.run("register")
    kept = root.parent / "kept"
    shutil.copytree(root / "models", kept)
    project.set(train__seed=7)
    project.run("train", "evaluate", "export", "report", "register")
    _run(project, *f"dvc exp save -q -n {EXPERIMENT}".split())
    _run(project, "git", "checkout", "-q", "--", ".")
    shutil.rmtree(root / "models")
    kept.rename(root / "models")
    return project


@contextmanager
def served(project: Project, **environment: str) -> Iterator[httpx.Client]:
    """The service at work in a project, and a client with its key."""
    port = free_port()
    command = [sys.executable, "-m", "finsight.cli", "serve", "--port", str(port)]
    log = project.root.parent / "served.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=project.root, env={**os.environ, **project.env, "FINSIGHT_API_KEY": KEY, **environment}, stdout=out, stderr=out
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/readyz", process)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": KEY}, timeout=60) as client:
            yield client
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def service(released: Project, redis_server: str) -> Iterator[httpx.Client]:
    """The service in the project of :func:`released`; whoever changes the registry brings it back."""
    with served(released, FINSIGHT_REDIS_URL=redis_server) as client:
        yield client
