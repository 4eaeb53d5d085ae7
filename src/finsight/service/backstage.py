"""What runs behind a service on one machine: a Redis of its own, and a worker."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from finsight.adapters import leash
from finsight.bootstrap.service import redis
from finsight.settings import Settings

PAUSE = 1.0  # seconds before a worker that has ended is started again
PATIENCE = 15.0  # seconds that a worker has to give its job back


@contextmanager
def backstage(settings: Settings, bundle: Path, worker: bool = True) -> Iterator[str]:
    """The address of the service's Redis: that of the settings, whose workers are others' business; or one of its own, with a worker."""
    command = [sys.executable, "-m", "finsight.cli", "worker", "--bundle", str(bundle)]
    with redis(settings) as address, kept_up(command, address) if worker and not settings.redis_url else contextlib.nullcontext():
        yield address


@contextmanager
def kept_up(command: Sequence[str], redis: str) -> Iterator[None]:
    """Run a worker as long as the block lasts, and start it again when it ends; it ends with this process, however that ends."""
    secrets = tuple(f"FINSIGHT_{name}{file}" for name in ("API_KEY", "OIDC_CLIENT_SECRET") for file in ("", "_FILE"))
    unneeded = (*secrets, "OTEL_SERVICE_NAME")
    environment = {name: value for name, value in os.environ.items() if name not in unneeded} | {"FINSIGHT_REDIS_URL": redis}
    over = threading.Event()
    running: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        leashed = [sys.executable, leash.__file__, "0", *command]
        running[:] = [subprocess.Popen(leashed, env=environment, stdin=subprocess.PIPE, start_new_session=True)]

    def watch() -> None:
        while not over.is_set():
            running[0].wait()
            if not over.wait(PAUSE):
                start()

    start()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        worker = running[0]
        worker.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(PATIENCE)
        if worker.stdin:
            worker.stdin.close()
        worker.wait()
        watcher.join()
