"""The address that shows metrics to everybody who reaches it: what one of these may cost."""

import socket
import threading
import time
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Gauge

from finsight.adapters import metrics_listener
from servers import free_port


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(metrics_listener, "SECONDS", 1.0)
    registry, found = CollectorRegistry(), free_port()
    Gauge("finsight_here", "Whether it is.", registry=registry).set(1)
    with metrics_listener.shown(registry, f"127.0.0.1:{found}", "FINSIGHT_WORKER_METRICS"):
        yield found


def scraped(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def test_whoever_sends_a_byte_now_and_then_is_sent_away(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        began = time.monotonic()
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            while time.monotonic() - began < 8:
                client.sendall(b"x")
                time.sleep(0.1)
    assert "finsight_here 1.0" in scraped(port)


def test_connections_have_a_bound_and_the_next_scrape_finds_room(port: int) -> None:
    before = threading.active_count()
    clients = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(100)]
    assert clients[-1].recv(1) == b"", "one too many"
    assert threading.active_count() - before <= 32
    for client in clients:
        client.recv(1)  # until it is sent away
        client.close()
    assert "finsight_here 1.0" in scraped(port)
    assert threading.active_count() <= before + 1
