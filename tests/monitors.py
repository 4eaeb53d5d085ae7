"""Prometheus and its companions, as the system's packages have them, at work on loopback; a test is skipped where they are not there."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from servers import free_port, wait_for


def tool(*names: str) -> str:
    """The path of a program by the first of its names that is there; upstream's differ from Debian's."""
    for name in names:
        if found := shutil.which(name):
            return found
    pytest.skip(f"{names[0]} is not installed (Debian: prometheus, prometheus-alertmanager, -pushgateway, -node-exporter)")


@contextmanager
def _running(command: Sequence[str], url: str, log: Path) -> Iterator[str]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "NO_PROXY": "*"})
    try:
        try:
            wait_for(url, process, 60)
        except AssertionError:
            raise AssertionError(f"{command[0]}: {log.read_text()[-2000:]}") from None
        yield url.removesuffix("/-/ready").removesuffix("/metrics")
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def pushgateway() -> Iterator[str]:
    """A Pushgateway; its address."""
    port = free_port()
    program = tool("prometheus-pushgateway", "pushgateway")
    with tempfile.TemporaryDirectory() as folder:
        command = [program, f"--web.listen-address=127.0.0.1:{port}", f"--persistence.file={folder}/data"]
        with _running(command, f"http://127.0.0.1:{port}/-/ready", Path(folder, "log")) as url:
            yield url


@contextmanager
def node_exporter(folder: Path) -> Iterator[str]:
    """A node_exporter with a textfile collector over a folder; its address."""
    port = free_port()
    program = tool("prometheus-node-exporter", "node_exporter")
    command = [program, "--collector.disable-defaults", "--collector.textfile", f"--collector.textfile.directory={folder}"]
    command.append(f"--web.listen-address=127.0.0.1:{port}")
    with tempfile.TemporaryDirectory() as own, _running(command, f"http://127.0.0.1:{port}/metrics", Path(own, "log")) as url:
        yield url


@contextmanager
def alertmanager(config: Path) -> Iterator[str]:
    """An Alertmanager of its own; its address."""
    port = free_port()
    program = tool("prometheus-alertmanager", "alertmanager")
    with tempfile.TemporaryDirectory() as folder:
        command = [program, f"--config.file={config}", f"--storage.path={folder}", "--cluster.listen-address="]
        with _running([*command, f"--web.listen-address=127.0.0.1:{port}"], f"http://127.0.0.1:{port}/-/ready", Path(folder, "log")) as url:
            yield url


@contextmanager
def prometheus(config: Path) -> Iterator["Asked"]:
    """A Prometheus."""
    port = free_port()
    program = tool("prometheus")
    with tempfile.TemporaryDirectory() as folder:
        command = [program, f"--config.file={config}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
        with _running(command, f"http://127.0.0.1:{port}/-/ready", Path(folder, "log")) as url, httpx.Client(base_url=url) as client:
            yield Asked(client)


class Asked:
    """What one asks a Prometheus."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an expression now."""
        answer = self._client.get("/api/v1/query", params={"query": expression})
        content = answer.json()
        assert content["status"] == "success", f"{expression}: {content}"
        found: list[dict[str, Any]] = content["data"]["result"]
        return found

    def alerts(self) -> list[dict[str, Any]]:
        """Alerts that are pending or fire."""
        found: list[dict[str, Any]] = self._client.get("/api/v1/alerts").json()["data"]["alerts"]
        return found

    def targets(self) -> dict[str, str]:
        """The address of each target → its health and last error."""
        active = self._client.get("/api/v1/targets").json()["data"]["activeTargets"]
        return {one["scrapeUrl"]: f"{one['health']} {one['lastError']}".strip() for one in active}


def until(found: Callable[[], Any], seconds: float = 60, what: Callable[[], Any] = lambda: "") -> Any:
    """Wait for something that is true; it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if it := found():
            return it
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds} s: {json.dumps(what(), default=str)[:3000]}")
