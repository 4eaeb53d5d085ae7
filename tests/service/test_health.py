"""Health while dependencies go and come: a service over a live Redis, MLflow and S3, each stopped in turn."""

import asyncio
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from apps import Badges, app_with, predicting, rules, served
from conftest import Project
from finsight.adapters.bounded import begun
from finsight.adapters.redis_server import embedded
from finsight.errors import FinsightError, UnreachableError
from finsight.service.app import create_app
from finsight.service.checks import FRESH, PATIENCE, Checks
from finsight.service.parts import Parts
from servers import S3_KEY, S3_SECRET, free_port, serve_s3
from serving import KEY, serving
from shell_workers import redis, until

ALL = {"predictions", "jobs", "scorings", "models", "credentials"}
STRANGER = {"X-Forwarded-For": "203.0.113.9"}  # whoever comes through a proxy is not of this host


def app(**questions: Any) -> Any:
    return create_app(Parts(gate=Badges(), rules=rules(), own=None, checks=Checks(questions), **predicting()))  # type: ignore[arg-type]


def refuse() -> str:
    raise UnreachableError("MLflow at http://10.1.2.3:5000: connection refused")


def test_what_started_says_so() -> None:
    with served(app_with()) as client:
        assert client.get("/startupz").json() == {"status": "started"}
        healthy = client.get("/healthz").json()
    assert healthy == {"status": "ok", "ready": dict.fromkeys(healthy["ready"], True), "dependencies": {}}
    assert healthy["ready"].keys() == ALL


def test_one_that_hangs_holds_up_nobody_and_is_asked_once() -> None:
    over, asked = threading.Event(), []

    def hang() -> str:
        asked.append(1)
        over.wait(30)
        return "late"

    with served(app(redis=hang, mlflow=lambda: "here")) as client:
        began = time.monotonic()
        first = client.get("/healthz")
        took = time.monotonic() - began
        assert PATIENCE - 0.1 < took < PATIENCE + 2
        began = time.monotonic()
        assert client.get("/readyz", params={"for": "jobs"}).status_code == 503
        assert client.get("/readyz").status_code == client.get("/livez").status_code == 200
        assert time.monotonic() - began < 1  # its time is over: nobody waits for it again
        client.get("/healthz")
        assert asked == [1]
        over.set()
        until(lambda: client.get("/healthz").json()["dependencies"]["redis"]["ok"], FRESH)
    found = first.json()
    assert (first.status_code, found["status"]) == (200, "degraded")
    assert found["dependencies"]["redis"] == {"ok": False, "seconds": pytest.approx(PATIENCE, abs=1), "detail": "it has not answered yet"}
    assert found["dependencies"]["mlflow"]["ok"]
    assert found["ready"] == {"predictions": True, "jobs": False, "scorings": False, "models": True, "credentials": False}


def test_waiting_for_one_that_hangs_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finsight.service.checks.PATIENCE", 0.0)
    over = threading.Event()
    checks = Checks({"redis": lambda: str(over.wait(30))})

    def futures() -> int:
        gc.collect()
        return sum(issubclass(type(one), asyncio.Future) for one in gc.get_objects())

    async def ask() -> int:
        await checks.findings()
        before = futures()
        for _ in range(500):
            assert not (await checks.findings())["redis"].ok
        return futures() - before

    left = asyncio.run(ask())
    over.set()
    assert left < 10


def test_what_it_said_is_for_this_host_and_those_who_may_read_metrics() -> None:
    with served(app(mlflow=refuse, bundle=lambda: 1 / 0)) as client:  # type: ignore[arg-type, return-value]
        stranger, admin = (client.get("/healthz", headers={**STRANGER, **more}) for more in ({}, {"X-API-Key": "a:b:admin"}))
        viewer = client.get("/healthz", headers={**STRANGER, "X-API-Key": "a:b:viewer"})
        unknown = client.get("/healthz", headers={**STRANGER, "X-API-Key": "unknown"})
        here = client.get("/healthz")
    assert "10.1.2.3" not in stranger.text
    assert stranger.json()["dependencies"]["mlflow"]["detail"] is None
    for insider in (admin, here):
        assert "10.1.2.3" in insider.json()["dependencies"]["mlflow"]["detail"]
        assert insider.json()["dependencies"]["bundle"]["detail"] == "ZeroDivisionError, which nobody foresaw"
    for one in (viewer, unknown):
        assert one.json()["dependencies"] == stranger.json()["dependencies"]
    # A service that can't predict is of no use to whoever sends it requests: a problem, with the same members.
    assert stranger.status_code == 503
    assert stranger.json()["type"] == "urn:finsight:problem:not-ready"
    assert not stranger.json()["ready"]["predictions"]


@pytest.mark.long
def test_an_answer_counts_for_a_while() -> None:
    asked: list[int] = []
    with served(app(redis=lambda: str(asked.append(1)))) as client:
        began = time.monotonic()
        while time.monotonic() < began + PATIENCE + 0.5:
            assert client.get("/healthz").json()["dependencies"]["redis"]["ok"]
            time.sleep(0.1)
    assert asked == [1]


def test_a_call_that_fails_hands_its_error_on() -> None:
    with pytest.raises(UnreachableError):
        begun(refuse).result(5)


def predicts(client: httpx.Client) -> bool:
    return client.post("/v1/predict", json={"texts": ["Profit rose"]}).status_code == 200


@pytest.mark.long
def test_it_lives_and_predicts_while_each_dependency_is_away(finished: Project, tmp_path: Path, mlflow_server: str) -> None:
    (tmp_path / "s3/jobs").mkdir(parents=True)
    (tmp_path / "redis").mkdir()
    s3_port = free_port()
    environment = {
        "FINSIGHT_OBJECTS": "s3://jobs/objects",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3_port}",
        "AWS_ACCESS_KEY_ID": S3_KEY,
        "AWS_SECRET_ACCESS_KEY": S3_SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    relay = Relay(mlflow_server)
    with ExitStack() as stack:
        cache = stack.enter_context(redis(tmp_path / "redis"))
        bucket = stack.enter_context(ExitStack())
        bucket.enter_context(serve_s3(tmp_path / "s3", port=s3_port))
        stack.callback(relay.stop)
        env = {**environment, "MLFLOW_TRACKING_URI": relay.url, "FINSIGHT_REDIS_URL": cache[0]}
        client, _ = stack.enter_context(serving(finished.root, **env))

        def away(*names: str) -> dict[str, bool]:
            """What it is ready for, once these are found to be away and no others."""

            def found() -> set[str]:
                dependencies = client.get("/healthz").json()["dependencies"]
                return {name for name, one in dependencies.items() if not one["ok"]}

            until(lambda: found() == set(names), 30)
            began = time.monotonic()
            ready: dict[str, bool] = client.get("/healthz").json()["ready"]
            assert time.monotonic() - began < PATIENCE + 1
            assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
            assert predicts(client)
            for purpose, so in ready.items():
                assert client.get("/readyz", params={"for": purpose}).status_code == (200 if so else 503), purpose
            return ready

        assert set(away()) == {name for name, so in away().items() if so} == ALL
        bucket.close()
        assert [name for name, so in away("objects").items() if not so] == ["scorings"]
        bucket.enter_context(serve_s3(tmp_path / "s3", port=s3_port))
        away()
        relay.hang()
        assert [name for name, so in away("mlflow").items() if not so] == ["models"]
        relay.go_on()
        away()
        os.kill(cache[1], signal.SIGSTOP)  # it takes connections and answers nothing
        stack.callback(os.kill, cache[1], signal.SIGCONT)
        assert {name for name, so in away("redis").items() if not so} == {"jobs", "scorings", "credentials"}
        os.kill(cache[1], signal.SIGCONT)
        away()
        details = " ".join(str(one["detail"]) for one in client.get("/healthz").json()["dependencies"].values())
        assert KEY not in details
        assert S3_SECRET not in details


class Relay:
    """Passes what comes on to a server, until it hangs: connections are taken, and nothing is said."""

    def __init__(self, target: str) -> None:
        self._target = (target.split("//")[1].split(":")[0], int(target.rpartition(":")[2]))
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._hangs = False
        self._held: list[socket.socket] = []
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        while True:
            try:
                one, _ = self._socket.accept()
            except OSError:
                return
            self._held.append(one)
            if not self._hangs:
                other = socket.create_connection(self._target)
                self._held.append(other)
                for a, b in ((one, other), (other, one)):
                    threading.Thread(target=self._pass, args=(a, b), daemon=True).start()

    @staticmethod
    def _pass(source: Any, sink: Any) -> None:
        try:
            while block := source.recv(65536):
                sink.sendall(block)
            sink.shutdown(1)
        except OSError:
            return

    def hang(self) -> None:
        self._hangs = True

    def go_on(self) -> None:
        self._hangs = False

    def stop(self) -> None:
        self._socket.close()
        for one in self._held:
            one.close()


def test_a_redis_that_is_no_redis_is_told_in_one_line(tmp_path: Path) -> None:
    from finsight.adapters.dependencies import redis_answers

    with embedded(tmp_path / "redis") as url:
        assert redis_answers(url).startswith("Redis ")
    with pytest.raises(UnreachableError, match="does not answer"):
        redis_answers(url)


def test_what_a_killed_worker_leaves_behind_is_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finsight.adapters.heartbeat import alive, beating

    name = socket.gethostname()
    (tmp_path / f"{name}-{os.getpid()}").touch()  # and its number is another process's by now
    with pytest.raises(FinsightError, match="no worker of this host runs"):
        alive(tmp_path)
    with ExitStack() as stack, beating(tmp_path, lambda: True) as stop:
        assert stop()
        assert alive(tmp_path) == [f"{socket.gethostname()}-{os.getpid()}"]
        with monkeypatch.context() as other:
            other.setattr("socket.gethostname", lambda: f"{name}-2")
            stack.enter_context(beating(tmp_path, lambda: True))  # of another host, over the same folder
        assert len(alive(tmp_path)) == 1
        with pytest.raises(FinsightError, match="give each container a hostname of its own"), beating(tmp_path, lambda: True):
            pass
        assert alive(tmp_path) == [f"{name}-{os.getpid()}"]
    with pytest.raises(FinsightError):
        alive(tmp_path)


@pytest.mark.long
def test_a_worker_lives_while_redis_is_away_and_is_ready_once_it_is_back(in_folder: Path) -> None:
    def health(kind: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "finsight.cli", "worker", "--health", kind]
        done = subprocess.run(command, cwd=in_folder, env=environment, capture_output=True, text=True)
        return done.returncode, (done.stdout + done.stderr).strip()

    (in_folder / "dvc.yaml").write_text("stages: {}")
    (in_folder / "redis").mkdir()
    with redis(in_folder / "redis") as (url, pid):
        environment = {**os.environ, "FINSIGHT_REDIS_URL": url}
        assert health("live") == (
            1,
            "error: " + f"{in_folder}/.service/workers: no worker of this host runs over this clone; start one with `finsight worker`",
        )
        worker = subprocess.Popen(
            [sys.executable, "-m", "finsight.cli", "worker"], cwd=in_folder, env=environment, stderr=subprocess.DEVNULL
        )
        try:
            until(lambda: health("ready")[0] == 0)
            assert health("live") == (0, f"{socket.gethostname()}-{worker.pid}: alive")
            os.kill(pid, signal.SIGSTOP)
            assert health("live")[0] == 0
            code, said = health("ready")
            assert (code, said.count("\n")) == (1, 0)
            assert "Redis does not answer" in said
            os.kill(pid, signal.SIGCONT)
            assert health("ready")[0] == 0
            worker.send_signal(signal.SIGSTOP)  # it hangs, as if it had for longer
            beat = next((in_folder / ".service/workers").iterdir())
            os.utime(beat, (0, time.time() - 61))
            code, said = health("live")
            assert (code, "no sign of life for" in said) == (1, True), said
        finally:
            os.kill(pid, signal.SIGCONT)
            worker.send_signal(signal.SIGCONT)
            worker.terminate()
            assert worker.wait(20) == 0
    assert list((in_folder / ".service/workers").iterdir()) == []


@pytest.mark.long
def test_a_workers_warnings_are_heard_where_nothing_less_is(in_folder: Path, redis_url: str) -> None:
    (in_folder / "dvc.yaml").write_text("stages: {}")
    with ExitStack() as stack:
        with suppress(OSError):  # taken by another: so much the better
            stack.enter_context(socket.create_server(("127.0.0.1", 9109)))
        environment = {**os.environ, "FINSIGHT_REDIS_URL": redis_url, "FINSIGHT_LOG_LEVEL": "warning"}
        command = [sys.executable, "-m", "finsight.cli", "worker"]
        worker = stack.enter_context(subprocess.Popen(command, cwd=in_folder, env=environment, stderr=subprocess.PIPE, text=True))
        assert worker.stderr
        line = json.loads(worker.stderr.readline())
        worker.terminate()
        assert worker.wait(30) == 0
    assert line["level"] == "warning"
    assert line["event"].startswith("FINSIGHT_WORKER_METRICS: something listens on 127.0.0.1:9109")
