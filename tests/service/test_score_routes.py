"""Scorings over REST: what is taken, what is refused before it is queued, whose result it is, and for how long."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from apps import app_with, rules, served
from conftest import Project
from finsight.adapters.folder_artifacts import FolderArtifacts
from finsight.adapters.jobs import RepositoryJobs
from finsight.adapters.redis_queue import RedisQueue
from finsight.adapters.s3_artifacts import S3Artifacts
from finsight.bundle import bundle_digest
from finsight.domain.artifacts import Bounds, place
from finsight.domain.jobs import Job, Kind, Limits, Order, State
from finsight.errors import ParamsError
from finsight.service.jobs import Jobs
from finsight.service.slots import Slots
from finsight.service.uploads import Scoring, Upload, incoming, sweep
from finsight.service_ports import ArtifactStore, Ending, Outcome
from serving import metric

TABLE = b'id,text\n1,Profit rose\n2,"Sales fell, by half"\n'
ANN, BOB, VIEWER = (
    {"X-API-Key": f"{who}:{tenant}:{role}"}
    for who, tenant, role in (
        ("ann", "acme", "scorer"),
        ("bob", "elsewhere", "scorer"),
        ("vic", "acme", "viewer"),
    )
)
CSV = {"Content-Type": "text/csv"}


@dataclass
class Desk:
    """The service, and what stands behind it. ``bundle`` is the one in service."""

    http: httpx.Client
    queue: RedisQueue
    store: ArtifactStore
    scoring: Scoring
    bundle: tuple[str, int | None] = ("0" * 64, None)

    def send(self, content: bytes = TABLE, whose: dict[str, str] = ANN, **query: str) -> httpx.Response:
        return self.http.post("/v1/score", content=content, params=query, headers=CSV | whose)

    def done(self, job: dict[str, Any], tmp_path: Path, content: bytes = b"id,text,predicted\r\n") -> Job:
        """Let a job be done, as a worker does."""
        lease = self.queue.take("w")
        assert lease
        assert lease.job.id == job["id"]
        (tmp_path / "made").write_bytes(content)
        result = f"scored-{lease.job.order.content}.csv"
        self.store.put(lease.job.order.tenant, result, tmp_path / "made")
        assert self.queue.end(lease, Outcome(Ending.SUCCEEDED, result=result))
        return lease.job


@pytest.fixture
def desk(redis_url: str, tmp_path: Path) -> Iterator[Desk]:
    queue, store = RedisQueue(redis_url), FolderArtifacts(tmp_path / "objects")
    scoring = Scoring(store, most=100_000, lines=1000, slots=Slots(1))
    desk = Desk(httpx.Client(), queue, store, scoring)
    orders = RepositoryJobs(tmp_path, store, served=lambda: desk.bundle)
    app = app_with(held_to=rules("*=100000/second"), jobs=Jobs(queue, orders.order, Limits(50, 20)), scoring=scoring)
    with served(app) as client:
        desk.http = client
        yield desk
    queue.close()


def test_a_table_is_a_job_and_its_result_a_table(desk: Desk, tmp_path: Path) -> None:
    answer = desk.send()
    job = answer.json()
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/v1/jobs/{job['id']}")
    name = f"{hashlib.sha256(TABLE).hexdigest()}.csv"
    assert (job["kind"], job["state"], job["parameters"]) == ("score", "queued", {"input": name, "text": "text"})
    assert b"".join(desk.store.read("acme", name)) == TABLE
    early = desk.http.get(f"/v1/jobs/{job['id']}/result", headers=ANN)
    assert (early.status_code, early.json()["type"]) == (409, "urn:finsight:problem:no-result")
    desk.done(job, tmp_path, content := os.urandom(700_000))
    found = desk.http.get(f"/v1/jobs/{job['id']}/result", headers=VIEWER)
    assert found.content == content
    assert found.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert found.headers["Content-Disposition"] == f'attachment; filename="scored-{job["id"][:12]}.csv"'
    assert found.headers["Content-Length"] == "700000"
    assert desk.http.get(f"/v1/jobs/{job['id']}/result", headers=BOB).status_code == 404


def test_a_form_and_a_name_are_the_same_order(desk: Desk) -> None:
    table = TABLE.replace(b"text", b"body")
    job = desk.send(table, text="body").json()
    form = desk.http.post("/v1/score", files={"file": ("../../etc/passwd", table, "text/csv")}, data={"text": "body"}, headers=ANN)
    named = desk.http.post("/v1/score", json=job["parameters"], headers=ANN)
    over_jobs = desk.http.post("/v1/jobs", json={"kind": "score", "parameters": job["parameters"]}, headers=ANN)
    assert [form.status_code, named.status_code, over_jobs.status_code] == [202, 202, 200]
    assert {answer.json()["id"] for answer in (form, named, over_jobs)} == {job["id"]}


def test_the_same_table_is_another_job_with_another_bundle_column_or_tenant(desk: Desk, tmp_path: Path) -> None:
    table = b"text,body\nProfit rose,Sales fell\n"
    first = desk.send(table).json()["id"]
    assert desk.send(table).json()["id"] == first
    others = [desk.send(table, text="body").json()["id"], desk.send(table, BOB).json()["id"]]
    desk.bundle = ("1" * 64, 7)
    others.append(desk.send(table).json()["id"])
    assert len({first, *others}) == 4
    made = desk.queue.get(others[-1])
    assert made
    assert made.order.inputs == {"bundle": "1" * 64, "version": "7"}
    # The worker scores with the version that was in service then, whatever the alias says by the time.
    work = RepositoryJobs(tmp_path, desk.store, Path("models:/finsight@champion")).work(made)
    assert work.commands[0][-2:] == ["models:/finsight/7", "1" * 64]


def test_a_name_that_comes_first_of_another_or_that_is_none_is_refused(desk: Desk) -> None:
    name = desk.send(whose=BOB).json()["parameters"]["input"]
    theirs = desk.http.post("/v1/score", json={"input": name}, headers=ANN)
    assert (theirs.status_code, theirs.json()["detail"]) == (404, f"input: there is no object {name}; upload it first")
    folder = place("elsewhere", name)
    for wrong in (
        f"../{folder}",
        folder,
        f"/{name}",
        f"s3://x/{name}",
        f"https://example.org/{name}",
        f"{name}/..",
        f"{name}\n",
        "",
        None,
        1,
    ):
        answer = desk.http.post("/v1/score", json={"input": wrong}, headers=ANN)
        assert (answer.status_code, answer.json()["detail"].split(":")[0]) == (422, "body.input"), wrong
    assert desk.http.get("/v1/jobs", headers=ANN).json()["jobs"] == []


@pytest.mark.parametrize(
    ("table", "column", "says"),
    [
        (b"id,words\n1,x\n", "text", "text: there is no column 'text'; the table has id, words"),
        (b"id,text\n1,x\n", "words", "text: there is no column 'words'; the table has id, text"),
        (b"id,text\n1,x\n", "--graph", "text: there is no column '--graph'; the table has id, text"),
        (b"", "text", "the table has no rows; "),
        (b"text\n", "text", "the table has no rows; "),
        (b"text\nx \xff\n", "text", "the table is not UTF-8; "),
        (b"text\nx \xc3", "text", "the table is not UTF-8; "),
        (b"text\n" + "ä\n".encode("utf-16"), "text", "the table is not UTF-8; "),
        (b"text,id\nx\n", "text", "the table:2: expected 2 columns, got 1; mend the line"),
        (b"text,text\nx,y\n", "text", "the table: column 'text' stands twice in the head"),
        (b'text\n"x\ny\n', "text", "the table:3: unexpected end of data; mend the quotes"),
        (b"text\n" + b"x\n" * 1000, "text", "the table has more than 1000 lines; send it in parts"),
        (b"a b/c\nx\n", "a b/c", "text: expected the name of a column, of letters"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line_before_it_is_queued(desk: Desk, table: bytes, column: str, says: str) -> None:
    for answer in (
        desk.send(table, text=column),
        desk.http.post("/v1/score", files={"file": table}, data={"text": column}, headers=ANN),
    ):
        assert answer.status_code == 422, answer.text
        assert answer.json()["detail"].startswith(says)
        assert "\n" not in answer.json()["detail"]
        assert "/" not in answer.json()["detail"].replace(column, "")
    assert desk.http.get("/v1/jobs", headers=ANN).json()["jobs"] == []


def test_a_head_of_many_columns_is_read_at_once(desk: Desk) -> None:
    columns = b",".join(b"%x" % n for n in range(15_000))
    table = columns + b"\n" + b"," * 14_999 + b"\n"
    began = time.process_time()
    assert desk.send(table).json()["detail"].startswith("text: there is no column 'text'; the table has 0, 1, ")
    assert time.process_time() - began < 1  # of this process, in which the service runs too


def test_a_row_has_an_end(tmp_path: Path) -> None:
    """Quotes that are never closed would take hundreds of megabytes into memory at once, of each of eight uploads."""
    with Upload(tmp_path / "table.csv", 10**9, 10**9) as upload:
        upload.write(b'id,text\n1,"')
        for _ in range(20):
            upload.write(b"x" * (2**20 - 1) + b"\n")
        with pytest.raises(ParamsError, match="a row of more than 16777216 characters"):
            upload.whole("text")


def test_a_disk_that_is_full_is_told_to_the_log(desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/dev/full/x")
    answer = desk.send()
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:finsight:problem:no-room")
    assert "a table could not be kept: [Errno 20] Not a directory: '/dev/full/x/finsight-upload-" in caplog.text


def test_other_bodies_are_refused(desk: Desk) -> None:
    assert desk.http.post("/v1/score", content=TABLE, headers=ANN).status_code == 415
    assert desk.http.post("/v1/score", content=TABLE, headers=ANN | {"Content-Type": "application/x-parquet"}).status_code == 415
    assert desk.http.post("/v1/score", data={"text": "text"}, files={"other": TABLE}, headers=ANN).status_code == 422
    assert desk.http.post("/v1/score", files=[("file", TABLE), ("file", TABLE)], headers=ANN).status_code == 400
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    assert desk.http.post("/v1/score", content=b"--y\r\n", headers=ANN | broken).status_code == 400
    assert desk.http.post("/v1/score", content=b"--y\r\n", headers=ANN | {"Content-Type": "multipart/form-data"}).status_code == 400
    json = {"Content-Type": "application/json"}
    assert desk.http.post("/v1/score", content=b"{", headers=ANN | json).status_code == 422
    assert desk.http.post("/v1/score", content=b'{"input": "' + b"x" * 20_000 + b'"}', headers=ANN | json).status_code == 413
    assert desk.send(whose=VIEWER).status_code == 403


def test_a_table_that_is_too_large_is_refused_as_early_as_can_be(desk: Desk) -> None:
    stated = desk.send(b"text\n" + b"x" * 200_000)
    sent = 0

    def blocks() -> Iterator[bytes]:
        nonlocal sent
        for block in (b"text\n", *([b"x" * 10_000] * 2000)):
            sent += len(block)
            yield block

    flowing = desk.http.post("/v1/score", content=blocks(), headers=CSV | ANN)
    form = desk.http.post("/v1/score", files={"file": b"text\n" + b"x" * 100_000}, headers=ANN)
    for answer in (stated, flowing, form):
        assert (answer.status_code, answer.json()["type"]) == (413, "urn:finsight:problem:too-large")
    assert sent < 20_000_000, "the rest is not waited for"
    assert desk.send().status_code == 202, "other paths and places are as they were"
    assert desk.http.post("/v1/predict", content=b"x" * (32 * 2**20 + 1), headers=ANN).status_code == 413


def test_who_goes_away_leaves_nothing_and_frees_the_place(desk: Desk, tmp_path: Path) -> None:
    address = (desk.http.base_url.host, desk.http.base_url.port)
    head = f"POST /v1/score HTTP/1.1\r\nHost: x\r\nX-API-Key: {ANN['X-API-Key']}\r\nContent-Type: text/csv\r\nContent-Length: 90000\r\n\r\n"
    with socket.create_connection(address) as client:  # type: ignore[arg-type]
        client.sendall(head.encode() + b"text\n")
        until(lambda: desk.scoring.slots._taken.total() == 1)
        assert desk.send().status_code == 503, "one at a time, here"
    until(lambda: desk.send().status_code == 202)
    assert metric(desk.http, "finsight_clients_gone_total") == 1
    assert not [path for path in Path(os.environ.get("TMPDIR", "/tmp")).glob("finsight-upload-*") if path.stat().st_mtime > began]


began = time.time()


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_an_order_comes_to_its_result_again_until_that_is_gone(desk: Desk, tmp_path: Path) -> None:
    def counted(found: str) -> float:
        return metric(desk.http, "finsight_result_cache_total", cache="scores", found=found)

    job = desk.send().json()
    first = desk.done(job, tmp_path)
    assert desk.send().json()["id"] == job["id"]
    assert (counted("yes"), counted("no")) == (1, 1)
    (tmp_path / "objects" / place("acme", f"scored-{first.order.content}.csv")).unlink()  # as too old
    gone = desk.http.get(f"/v1/jobs/{job['id']}/result", headers=ANN)
    assert (gone.status_code, gone.json()["detail"]) == (410, f"the result of job {job['id']} is not kept any more; send the table again")
    again = desk.send().json()
    assert again["id"] != job["id"]
    assert (again["state"], again["parameters"]) == ("queued", job["parameters"])
    assert desk.send().json()["id"] == again["id"]
    desk.done(again, tmp_path)
    assert desk.send().json()["id"] == again["id"]
    assert desk.http.get(f"/v1/jobs/{again['id']}/result", headers=ANN).status_code == 200
    assert (counted("yes"), counted("no")) == (3, 2)


def test_limits_and_keys_are_those_of_jobs(desk: Desk) -> None:
    named = {"Idempotency-Key": "monday"}
    job = desk.send(whose=ANN | named).json()["id"]
    assert desk.send(whose=ANN | named).json()["id"] == job
    reused = desk.send(TABLE + b"3,x\n", ANN | named)
    assert (reused.status_code, reused.json()["detail"].split(":")[0]) == (422, "Idempotency-Key")
    for n in range(19):
        assert desk.send(TABLE + f"3,{n}\n".encode()).status_code == 202
    busy = desk.send(TABLE + b"3,x\n")
    assert (busy.status_code, busy.headers["Retry-After"]) == (429, "60")


def test_other_jobs_have_no_result(desk: Desk) -> None:
    job, _ = desk.queue.submit(Order(Kind.TRAIN, {}, "acme", "ann"))
    answer = desk.http.get(f"/v1/jobs/{job.id}/result", headers=ANN)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:finsight:problem:no-scoring")


def test_many_at_once_are_one_job(desk: Desk) -> None:
    table = b"text\n" + b"".join(b"Profit rose by %d\n" % n for n in range(500))
    ids: list[str] = []

    def send() -> None:
        until(lambda: (answer := desk.send(table)).status_code == 202 and not ids.append(answer.json()["id"]))

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 6
    assert len(set(ids)) == 1


def test_what_a_killed_service_left_of_uploads_goes_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with incoming() as under_way:
        under_way.write_bytes(TABLE)
        kept = [under_way]
        for name in ("finsight-upload-aaaaaaa1", "finsight-upload-aaaaaaa2", "finsight-upload-mine", "finsight-uploads"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "table.csv").write_bytes(TABLE)
        kept += [tmp_path / name / "table.csv" for name in ("finsight-upload-mine", "finsight-uploads")]
        kept.append(tmp_path / "finsight-upload-aaaaaaa2/notes.txt")
        kept[-1].write_text("not ours")
        (tmp_path / "finsight-upload-aaaaaaa3").symlink_to(tmp_path / "finsight-uploads")
        for path in tmp_path.iterdir():
            if path != under_way.parent:
                os.utime(path, (0, 0), follow_symlinks=False)
        sweep()
        assert not (tmp_path / "finsight-upload-aaaaaaa1").exists()
        assert all(path.exists() for path in kept)
    assert not under_way.parent.exists()


# The command that a worker runs.


@pytest.fixture(params=["folder", "s3"])
def stored(request: pytest.FixtureRequest, finished: Project, tmp_path: Path) -> tuple[RepositoryJobs, ArtifactStore, dict[str, str]]:
    """Scorings in a finished project whose storage is a folder, or a bucket."""
    bundle = finished.root / "models/bundle"
    root = tmp_path / "clone"
    root.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        (root / name).write_text((finished.root / name).read_text())
    environment, store = dict(finished.env), FolderArtifacts(root / ".service/objects")
    kept: ArtifactStore = store
    if request.param == "s3":
        request.getfixturevalue("s3_credentials")
        url, folder = request.getfixturevalue("s3")
        (folder / "tables").mkdir(exist_ok=True)
        time.sleep(0.2)  # the server looks at the folder anew
        environment |= {"FINSIGHT_OBJECTS": "s3://tables/a/b", "AWS_ENDPOINT_URL": url}
        kept = S3Artifacts("s3://tables/a/b", url, Bounds())
    return RepositoryJobs(root, kept, bundle), kept, environment


def run(jobs: RepositoryJobs, store: ArtifactStore, environment: dict[str, str], tmp_path: Path, table: bytes, **changes: Any) -> Any:
    """Order a scoring and run its command; how it ended, what it printed, and the work."""
    path = tmp_path / "table.csv"
    path.write_bytes(table)
    name = f"{hashlib.sha256(table).hexdigest()}.csv"
    store.put("-acme", name, path)
    order = jobs.order(Kind.SCORE, {"input": name}, "-acme", "ann")
    job = Job("a" * 32, replace(order, **changes), State.RUNNING, 1, 0.0)
    work = jobs.work(job)
    events = tmp_path / "events"
    events.write_text("")
    done = subprocess.run(
        work.commands[0], cwd=work.cwd, env={**os.environ, **environment, "FINSIGHT_EVENTS": str(events)}, capture_output=True, text=True
    )
    return done, work.found().result, events.read_text()


def test_a_scoring_puts_its_result_beside_its_input_and_is_done_once(
    stored: tuple[RepositoryJobs, ArtifactStore, dict[str, str]], tmp_path: Path
) -> None:
    jobs, store, environment = stored
    done, result, events = run(jobs, store, environment, tmp_path, TABLE)
    assert (done.returncode, done.stdout) == (0, "2 rows, 0 of them by an earlier run, 0 without a text\n"), done.stderr
    lines = b"".join(store.read("-acme", result)).decode().split("\r\n")
    assert lines[0].startswith("id,text,predicted,prob_negative,")
    assert lines[2].startswith('2,"Sales fell, by half",')
    assert '{"type": "stage", "stage": "score"}' in events
    assert '{"type": "progress", "step": 2, "steps": 2}' in events
    assert not list((tmp_path / "clone/.service/scoring").iterdir())
    again, _, _ = run(jobs, store, environment, tmp_path, TABLE)
    assert (again.returncode, again.stdout) == (0, "kept\n")


def test_a_scoring_that_was_killed_goes_on(finished: Project, tmp_path: Path) -> None:
    store = FolderArtifacts(tmp_path / ".service/objects")
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_text((finished.root / name).read_text())
    table = b"text\n" + b"".join(b"Operating profit rose to EUR %d mn.\n" % n for n in range(40_000))
    (tmp_path / "table.csv").write_bytes(table)
    name = f"{hashlib.sha256(table).hexdigest()}.csv"
    store.put("acme", name, tmp_path / "table.csv")
    jobs = RepositoryJobs(tmp_path, store, finished.root / "models/bundle")
    work = jobs.work(Job("a" * 32, jobs.order(Kind.SCORE, {"input": name}, "acme", "ann"), State.RUNNING, 1, 0.0))
    environment = {**os.environ, **finished.env}
    with subprocess.Popen(work.commands[0], cwd=work.cwd, env=environment, stdout=subprocess.DEVNULL) as process:
        until(lambda: bool(list((tmp_path / ".service/scoring").glob("*/*.parts/00000000.csv"))))
        process.kill()
    assert [path.stat().st_mode & 0o077 for path in (tmp_path / ".service/scoring").iterdir()] == [0]
    done = subprocess.run(work.commands[0], cwd=work.cwd, env=environment, capture_output=True, text=True)
    rows, before = (int(part.split()[0]) for part in done.stdout.split(", ")[:2])
    assert rows == 40_000
    assert 0 < before < 40_000
    scored = b"".join(store.read("acme", work.found().result)).decode().split("\r\n")[1:-1]
    assert [line.split(",")[0] for line in scored] == table.decode().splitlines()[1:]


def test_what_can_t_be_scored_is_one_line_without_a_path(
    stored: tuple[RepositoryJobs, ArtifactStore, dict[str, str]], tmp_path: Path
) -> None:
    jobs, store, environment = stored
    table = b"id,text\n" + b"1,x\n" * 200 + b"2\n"
    done, result, events = run(jobs, store, environment, tmp_path, table)
    assert done.returncode == 1
    assert done.stderr.strip() == "error: input.csv:202: expected 2 columns, got 1; mend the line"
    assert '"error": "input.csv:202: expected 2 columns, got 1; mend the line", "passing": false' in events
    assert store.size("-acme", result) is None
    assert not list((tmp_path / "clone/.service/scoring").iterdir())
    other, _, _ = run(jobs, store, environment, tmp_path, TABLE, inputs={"bundle": "1" * 64})
    assert other.returncode == 3
    assert other.stderr.startswith("error: the bundle that was asked for is not the one here;")


def test_the_bundle_of_a_folder_is_the_one_that_is_ordered(
    stored: tuple[RepositoryJobs, ArtifactStore, dict[str, str]], finished: Project, tmp_path: Path
) -> None:
    jobs, store, _ = stored
    (tmp_path / "t").write_bytes(TABLE)
    name = f"{hashlib.sha256(TABLE).hexdigest()}.csv"
    store.put("t", name, tmp_path / "t")
    assert jobs.order(Kind.SCORE, {"input": name}, "t", "ann").inputs == {"bundle": bundle_digest(finished.root / "models/bundle")}
