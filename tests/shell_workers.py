"""Workers of shell scripts as processes of their own, and a Redis that can be killed and comes back under its address."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from redis import Redis, RedisError

import finsight
from finsight.adapters.redis_server import executable


@contextmanager
def worker(
    url: str, folder: Path, lease: float = 15, seconds: float = 60, gpus: Sequence[str] = (), **env: str
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, str(Path(__file__).with_name("shell_worker.py")), url, str(lease), str(seconds), *gpus]
    environment = {**os.environ, "PYTHONPATH": str(Path(finsight.__file__).parents[1]), **env}
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(20)


@contextmanager
def redis(folder: Path) -> Iterator[tuple[str, int]]:
    """The service's Redis, at an address that stays; its process."""
    socket = Path("/tmp") / f"finsight-test-{os.getpid()}.sock"
    options = (
        "--port",
        "0",
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--save",
        "",
        "--unixsocket",
        str(socket),
        "--dir",
        str(folder),
    )
    process = subprocess.Popen([executable(), *options], stdout=subprocess.DEVNULL)
    try:
        with Redis(unix_socket_path=str(socket)) as client:

            def answers() -> bool:
                with suppress(RedisError):
                    return bool(client.ping())
                return False

            until(answers)
        yield f"unix://{socket}", process.pid
    finally:
        process.kill()
        process.wait()
        socket.unlink(missing_ok=True)


def until(what: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)
