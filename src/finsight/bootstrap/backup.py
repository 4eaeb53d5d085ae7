"""What the service and its registry keep, into one file and back."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from finsight.bootstrap.service import OWN, audit_log, redis
from finsight.errors import ArtifactError, DataError, GateError
from finsight.files import PARTIAL, atomic_folder
from finsight.settings import Settings, project_root

_REDIS, _DATABASE = "redis/kept.jsonl", "database/mlflow.db"
_DESK = ".backup-"


def backup(settings: Settings, folder: Path) -> tuple[Path, list[str]]:
    """Write a backup into a folder; its path, and the names of what is in it.

    :raises UnreachableError: when Redis does not answer.
    """
    from finsight.adapters import backups

    key = settings.encryption_key
    when = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    target = folder / f"finsight-{when}{backups.ENCRYPTED if key else backups.PLAIN}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _desk(folder) as desk:
        return target, backups.write(target, _files(settings, desk), key.get_secret_value() if key else None)


@contextmanager
def _desk(folder: Path) -> Iterator[Path]:
    """A folder for copies, which are in the clear; those that killed runs have left go. Whoever works on one holds its lock."""

    def hold(place: str | Path, ends: ExitStack) -> None:
        ends.callback(os.close, descriptor := os.open(place, os.O_RDONLY))
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    for left in folder.glob(f"{_DESK}*"):
        with suppress(OSError), ExitStack() as ends:
            hold(left, ends)
            shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=folder, prefix=_DESK) as desk, ExitStack() as ends:
        hold(desk, ends)
        yield Path(desk)


def _files(settings: Settings, desk: Path) -> Iterator[tuple[str, Path | bytes]]:
    """In this order what refers to something is taken before that: nothing refers to what came later. What waits in the outbox is taken
    before the database, since it goes there."""
    from finsight.adapters import redis_snapshot
    from finsight.adapters.redis_connection import connect

    with redis(settings) as address, connect(address, text=False, seconds=redis_snapshot.SECONDS, again=0) as client:
        yield _REDIS, redis_snapshot.lines(redis_snapshot.take(client))
    folders = _folders(settings)
    outbox = folders.pop("outbox")
    # Below it lies in the clear what another process is sending.
    yield from ((name, path) for name, path in _within("outbox", outbox) if path.parent == outbox)
    if (database := _database(settings)) and database.is_file():
        _copy(database, desk / "copy")
        yield _DATABASE, desk / "copy"
    for name, folder in folders.items():
        yield from _within(name, folder)


def _within(name: str, folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and PARTIAL not in path.name:
            yield f"{name}/{path.relative_to(folder).as_posix()}", path


def _folders(settings: Settings) -> dict[str, Path]:
    """Folders of this clone that keep something, by their names in a backup; what stands in a bucket is the bucket's to keep."""
    from finsight.adapters.outbox import OUTBOX

    found = {"outbox": project_root() / OUTBOX}
    if database := _database(settings):
        found["mlruns"] = database.parent / "mlruns"
    if not settings.objects:
        found["objects"] = project_root() / OWN / "objects"
    return found


def _database(settings: Settings) -> Path | None:
    """The file of MLflow's database; None for a server, which has one of its own."""
    parts = urlsplit(settings.tracking_uri())
    return Path(parts.path[1:]).resolve() if parts.scheme.startswith("sqlite") else None


def _copy(source: Path, target: Path) -> None:
    """SQLite's own backup: one moment of a database that is being written, into one that others may have open.

    :raises ArtifactError: when one of them is none, or the disk is full.
    """
    try:
        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
            old.backup(new)
    except sqlite3.Error as error:
        raise ArtifactError(f"{source} can't be copied to {target}: {error}; see to that, and do it again") from None


def contained(settings: Settings, path: Path) -> list[str]:
    """The names of what is in a backup, each of which is what was written.

    :raises ArtifactError: when the backup is not whole, or none.
    """
    from finsight.adapters import backups

    key = settings.encryption_key
    with backups.opened(path, key.get_secret_value() if key else None) as content:
        return content.names


def restore(settings: Settings, path: Path, replace: bool) -> tuple[list[str], int]:
    """Put a backup in place of what is there; the names of what was in it, and how many records the audit log has.

    Everything is checked and unpacked beside its place first. Redis, which may refuse, then takes its part in one step.

    :param replace: whether what is there may go.
    :raises ArtifactError: when the backup is not whole, or none.
    :raises DataError: when something is there.
    :raises GateError: when the audit log that was restored does not hold.
    """
    from finsight.adapters import backups, redis_snapshot
    from finsight.adapters.redis_connection import connect
    from finsight.domain.audit import check

    key = settings.encryption_key
    with (
        backups.opened(path, key.get_secret_value() if key else None) as content,
        redis(settings) as address,
        connect(address, text=False, seconds=redis_snapshot.SECONDS, again=0) as client,
    ):
        database, folders = _places(settings, path, {name.partition("/")[0] for name in content.names})
        if not replace and (there := _there(database, folders, bool(redis_snapshot.take(client)))):
            raise DataError(f"{there} is not empty; stop what uses it, and restore with --replace, which removes what is there")
        with ExitStack() as ends:
            for name, folder in folders.items():
                unpacked = ends.enter_context(atomic_folder(folder))
                unpacked.chmod(0o755 if name == "mlruns" else 0o700)
                content.unpack(name, unpacked)
            desk = Path(ends.enter_context(tempfile.TemporaryDirectory()))
            content.unpack("database", desk)
            redis_snapshot.put(client, redis_snapshot.read(content.read(_REDIS)))
            if database:
                database.parent.mkdir(parents=True, exist_ok=True)
                _copy(desk / "mlflow.db", database)
        log = audit_log(settings, address)
        head, problem = check(log.records(), log.written())
        if problem:
            raise GateError(f"{path} is restored, but its audit log: {problem}; the {head.number} before hold")
        return content.names, head.number


def _places(settings: Settings, path: Path, parts: set[str]) -> tuple[Path | None, dict[str, Path]]:
    """Where the parts of a backup go here.

    :raises DataError: when there is no place for one.
    """
    database, folders = _database(settings), _folders(settings)
    known = {"redis", *folders, *(["database"] if database else [])}
    if lost := sorted(parts - known):
        raise DataError(
            f"{path} has {', '.join(lost)}, for which these settings have no place; set MLFLOW_TRACKING_URI and FINSIGHT_OBJECTS as they "
            "were when it was written"
        )
    return database if "database" in parts else None, {name: folder for name, folder in folders.items() if name in parts}


def _there(database: Path | None, folders: dict[str, Path], redis_has: bool) -> str:
    """What is in the way, in words."""
    if redis_has:
        return "the service's Redis"
    if database and database.exists():
        return str(database)
    return next((str(folder) for folder in folders.values() if folder.is_dir() and any(folder.iterdir())), "")
