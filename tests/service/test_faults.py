"""The service is killed piece by piece while jobs run: real replicas, real workers, one Redis over a folder."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from champions import CHAMPION, Asking, register
from conftest import Project
from finsight.adapters.redis_queue import RedisQueue
from finsight.bundle import bundle_digest
from servers import free_port, wait_for
from serving import HEADERS, KEY, serving
from shell_workers import redis, until, worker

pytestmark = pytest.mark.long

# Says that its job lives, 20 times a second, for a second and a half; then fails where it is told to.
SCRIPT = """for i in $(seq 30); do echo "$JOB $$ $(date +%s.%N)" >> beats; sleep 0.05; done
if [ -e "fails-$JOB" ]; then echo '{"type": "error", "error": "as told", "passing": false}' >> $FINSIGHT_EVENTS; exit 1; fi"""
TABLES, FAILING, CANCELLED = 36, range(3, 36, 12), range(7, 36, 12)


@contextmanager
def replica(root: Path, *options: str, **env: str) -> Iterator[tuple[httpx.Client, "subprocess.Popen[bytes]"]]:
    """A service that may be killed."""
    port = free_port()
    command = [sys.executable, "-m", "finsight.cli", "serve", "--port", str(port), *options]
    environment = {**os.environ, "FINSIGHT_API_KEY": KEY, "FINSIGHT_LIMITS": "*=100000/second", **env}
    process = subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}/readyz", process)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=HEADERS, timeout=60) as client:
            yield client, process
    finally:
        process.kill()
        process.wait()


def table(number: int) -> bytes:
    return b"text\nProfit rose by %d\n" % number


def send(client: httpx.Client, content: bytes) -> str | None:
    """The id of the job of a table, where it was acknowledged."""
    with contextlib.suppress(httpx.TransportError):
        answer = client.post("/v1/score", content=content, headers={"Content-Type": "text/csv"})
        if answer.status_code == 202:
            return str(answer.json()["id"])
        assert answer.status_code in (429, 503), answer.text
    return None


def test_every_job_is_accounted_for_after_a_worker_a_replica_and_redis_were_killed(
    copy_of: Callable[[Project], Project], finished: Project, tmp_path: Path
) -> None:
    project, lines = copy_of(finished), tmp_path / "work"
    lines.mkdir()
    (tmp_path / "redis").mkdir()
    jobs: dict[int, str] = {}
    with ExitStack() as stack:
        first = stack.enter_context(ExitStack())  # the first Redis
        url, server = first.enter_context(redis(tmp_path / "redis"))
        settings = {**project.env, "FINSIGHT_REDIS_URL": url}
        doomed, stays = (stack.enter_context(replica(project.root, "--no-worker", **settings)) for _ in range(2))
        workers = [stack.enter_context(worker(url, lines, 9, SHELL_SCRIPT=SCRIPT)) for _ in range(3)]
        cancelled: set[str] = set()

        def clients(which: int) -> None:
            """Sends its tables, each until it is acknowledged by one of the two; a few of their jobs fail, a few are cancelled."""
            for number in range(which, TABLES, 3):
                for client in [doomed[0], stays[0]] * 1000:
                    if job := send(client, table(number)):
                        break
                    time.sleep(0.05)
                jobs[number] = str(job)
                if number in FAILING:
                    (lines / f"fails-{job}").touch()
                if number in CANCELLED:
                    with contextlib.suppress(httpx.TransportError):
                        if stays[0].delete(f"/v1/jobs/{job}").status_code == 202:
                            cancelled.add(str(job))

        threads = [threading.Thread(target=clients, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        queue = RedisQueue(url)
        stack.callback(queue.close)

        def in_the_middle(process: int) -> bool:
            """Whether a worker is at a job that has just begun."""
            young = [job for job, lived in spans(lines).items() if lived[-1][1] - lived[-1][0] < 0.7]
            by = [queue._redis.hmget(f"{{jobs}}:job:{job}", "state", "worker") for job in young]
            return any(state == "running" and worker.endswith(f"-{process}") for state, worker in by)

        until(lambda: in_the_middle(workers[0].pid))
        workers[0].send_signal(signal.SIGKILL)
        doomed[1].send_signal(signal.SIGKILL)
        until(lambda: len(spans(lines)) >= 8)
        os.kill(server, signal.SIGKILL)
        first.close()
        time.sleep(1)
        stack.enter_context(redis(tmp_path / "redis"))
        for thread in threads:
            thread.join(120)
        assert sorted(jobs) == list(range(TABLES))
        assert len(set(jobs.values())) == TABLES, "a table that was sent twice is one job"

        def states() -> dict[str, str]:
            with contextlib.suppress(httpx.TransportError, KeyError):
                return {job: stays[0].get(f"/v1/jobs/{job}").json()["state"] for job in jobs.values()}
            return {"": "queued"}

        until(lambda: not {"queued", "running"} & set(states().values()), 240)
        found = states()
        for number, job in jobs.items():
            if job not in cancelled:
                assert found[job] == ("failed" if number in FAILING else "succeeded"), number
            else:
                assert found[job] in ("cancelled", "succeeded"), number  # it may have been done before it was asked to end
        listed = stays[0].get("/v1/jobs", params={"limit": 200}).json()["jobs"]
        assert {job["id"] for job in listed} == set(jobs.values())
    ran = spans(lines)
    assert {job for job, state in found.items() if state != "cancelled"} <= set(ran)
    assert any(len(attempts) > 1 for attempts in ran.values()), "the killed worker's job ran again"
    for job, attempts in ran.items():
        for (_, end), (start, _) in pairwise(attempts):
            assert end < start, f"{job} ran twice at once"


def spans(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """By job, from when to when each of its processes lived, in their order."""
    found: dict[tuple[str, str], list[float]] = {}
    path = folder / "beats"
    for line in path.read_text().splitlines() if path.exists() else []:
        job, process, when = line.split()
        found.setdefault((job, process), []).append(float(when))
    by_job: dict[str, list[tuple[float, float]]] = {}
    for (job, _), when_all in sorted(found.items(), key=lambda one: one[1][0]):
        by_job.setdefault(job, []).append((when_all[0], when_all[-1]))
    return by_job


def test_a_service_that_was_killed_is_back_within_seconds_with_all_that_it_acknowledged(
    copy_of: Callable[[Project], Project], finished: Project
) -> None:
    project = copy_of(finished)
    with replica(project.root, **project.env) as (client, process):
        jobs = [send(client, table(number)) for number in range(12)]
        assert None not in jobs
        until(lambda: client.get(f"/v1/jobs/{jobs[0]}").json()["state"] == "running")
        process.send_signal(signal.SIGKILL)
        began = time.monotonic()
        with replica(project.root, **project.env) as (again, _):
            assert time.monotonic() - began < 60
            assert {job["id"] for job in again.get("/v1/jobs").json()["jobs"]} == set(jobs)
            until(lambda: {again.get(f"/v1/jobs/{job}").json()["state"] for job in jobs} == {"succeeded"}, 240)
            for number, job in enumerate(jobs):
                assert f"Profit rose by {number}," in again.get(f"/v1/jobs/{job}/result").text


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")  # MLflow's own
def test_a_promotion_is_served_by_its_replica_at_once_and_by_the_others_soon_without_a_failed_request(
    copy_of: Callable[[Project], Project], finished: Project
) -> None:
    project = copy_of(finished)
    first = bundle_digest(project.root / "models/bundle")
    second = register(project, 3.0, alias="challenger")
    options = ("--no-worker", "--bundle", CHAMPION)
    with (
        serving(project.root, *options, **project.env, FINSIGHT_FOLLOW_SECONDS="3600") as (asked, _),
        serving(project.root, *options, **project.env, FINSIGHT_FOLLOW_SECONDS="0.5") as (other, _),
    ):
        with Asking(asked.base_url) as here, Asking(other.base_url) as there:
            until(lambda: len(here.answers) > 20 and len(there.answers) > 20)
            moved = asked.post("/v1/models/2/promote", json={"alias": "champion", "why": "a drill", "force": True}, timeout=120)
            assert (moved.status_code, moved.json()["before"]) == (200, 1), moved.text
            until(lambda: here.answers[-1][1] == there.answers[-1][1] == second)
            assert other.post("/v1/models/rollback", json={"alias": "champion", "why": "the drill is over"}).status_code == 200
            until(lambda: there.answers[-1][1] == first)
        assert {status for status, _ in [*here.answers, *there.answers]} == {200}
        assert {bundle for _, bundle in [*here.answers, *there.answers]} == {first, second}
