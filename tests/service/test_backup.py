"""Everything that a service keeps is lost, and comes back: a real Redis, a real MLflow database, a real champion."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyrage import x25519
from redis import Redis

from champions import CHAMPION, register
from conftest import Project, starter_rows, write_csv
from finsight.adapters.redis_server import embedded
from serving import TEXTS, serving


@contextmanager
def working(project: Project) -> Iterator[None]:
    """A worker of the project: where Redis is not the service's own, it starts none."""
    command = [sys.executable, "-m", "finsight.cli", "worker", "--bundle", CHAMPION]
    process = subprocess.Popen(command, cwd=project.root, env={**os.environ, **project.env}, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")  # MLflow's own
@pytest.mark.long
def test_keys_jobs_audit_log_and_champion_outlive_the_loss_of_all(
    finished: Project, copy_of: Callable[[Project], Project], tmp_path: Path
) -> None:
    project = copy_of(finished)
    # In an experiment of its own, whose artifacts stand beside this database; those of the others are where they were copied from.
    digest = register(project, 3.0, experiment="copied")
    table = write_csv(tmp_path / "texts.csv", starter_rows(20)).read_bytes()
    secret = str(x25519.Identity.generate())
    with embedded(tmp_path / "first") as redis:
        project.env |= {"FINSIGHT_REDIS_URL": redis, "FINSIGHT_ENCRYPTION_KEY": secret}
        with serving(project.root, "--no-worker", "--bundle", CHAMPION, **project.env) as (http, _):
            made = http.post("/v1/keys", json={"name": "theirs", "roles": ["scorer"]}).json()
            lost = http.post("/v1/keys", json={"name": "taken back", "roles": ["scorer"]}).json()
            assert http.delete(f"/v1/keys/{lost['id']}").status_code < 300
            theirs = {"X-API-Key": made["key"]}
            asked = {"grant_type": "client_credentials", "client_id": made["id"], "client_secret": made["client_secret"]}
            token = http.post("/v1/auth/token", data=asked).json()["access_token"]
            job = http.post("/v1/score", content=table, headers={**theirs, "Content-Type": "text/csv"}).json()
            assert job["state"] == "queued"
            said = project.cli("backup", "../backups")  # while the service runs
        (backup,) = (tmp_path / "backups").iterdir()
        assert "redis, database, mlruns" in said
        records = project.cli("audit", "show", "--json")
        with Redis.from_url(redis) as client:
            client.flushall()
    for name in ("mlruns", ".service", "cache", "models", "made"):
        shutil.rmtree(project.root / name)
    (project.root / "mlflow.db").unlink()

    with embedded(tmp_path / "second") as redis:
        project.env["FINSIGHT_REDIS_URL"] = redis
        project.cli("restore", str(backup))
        assert project.cli("audit", "show", "--json") == records
        assert records.count("\n") >= 4
        assert f"{records.count(chr(10))} records hold" in project.cli("audit", "verify")
        with serving(project.root, "--bundle", CHAMPION, **project.env) as (http, _), working(project):
            assert http.get("/readyz").json() == {"status": "ready", "bundle": digest, "version": 2}
            http.headers.pop("X-API-Key")
            assert http.post("/v1/predict", json={"texts": TEXTS}, headers=theirs).json()["model"]["bundle"] == digest
            assert http.get("/v1/me", headers={"Authorization": f"Bearer {token}"}).status_code == 200
            assert http.get("/v1/me", headers={"X-API-Key": lost["key"]}).status_code == 401
            end = time.monotonic() + 120
            while (found := http.get(f"/v1/jobs/{job['id']}", headers=theirs).json())["state"] in ("queued", "running"):
                assert time.monotonic() < end, found
                time.sleep(1)  # reads are limited, too
            assert (found["state"], found["error"]) == ("succeeded", "")
            assert http.get(f"/v1/jobs/{job['id']}/result", headers=theirs).text.count("\n") == 21
