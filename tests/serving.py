"""A service over a project, as a process of its own, and what tests ask of it."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from prometheus_client.parser import text_string_to_metric_families

from finsight.adapters.redis_server import embedded
from servers import free_port, wait_for

KEY = "a-key-for-tests"
HEADERS = {"X-API-Key": KEY}
TEXTS = ["Profit rose", "Sales fell by half"]


@contextmanager
def serving(root: Path, *options: str, **env: str) -> Iterator[tuple[httpx.Client, "subprocess.Popen[bytes]"]]:
    """A service over a project, with a Redis apart from those of others there; it must end with 0."""
    with TemporaryDirectory() as folder, embedded(Path(folder, "redis")) as redis:
        yield from _serving(root, options, {"FINSIGHT_REDIS_URL": redis, **env})


def _serving(root: Path, options: Sequence[str], env: Mapping[str, str]) -> Iterator[tuple[httpx.Client, "subprocess.Popen[bytes]"]]:
    port = free_port()
    command = [sys.executable, "-m", "finsight.cli", "serve", "--port", str(port), *options]
    environment = {**os.environ, "FINSIGHT_API_KEY": KEY, "FINSIGHT_DRAIN_SECONDS": "0", "FINSIGHT_LIMITS": "predict=100000/second", **env}
    process = subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        wait_for(f"http://127.0.0.1:{port}/readyz", process)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=HEADERS, timeout=60) as client:
            yield client, process
        process.terminate()
        assert process.wait(40) == 0
    finally:
        process.kill()
        process.communicate()


def metric(client: httpx.Client, name: str, **labels: str) -> float:
    families = text_string_to_metric_families(client.get("/metrics").text)
    found = [s.value for family in families for s in family.samples if s.name == name and labels.items() <= s.labels.items()]
    return sum(found)
