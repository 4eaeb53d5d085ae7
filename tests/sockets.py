"""The service's own server with its own protocol of sockets, and clients of it."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from apps import Badges, predicting, rules
from finsight.adapters.redis_queue import RedisQueue
from finsight.domain.jobs import Job, Kind, Order
from finsight.service.jobs import Jobs
from finsight.service.parts import Parts
from finsight.service.serving import Server, server
from finsight.service.sockets import SocketLimits, Sockets
from finsight.service_ports import Ending, Lease, Outcome
from live import at_work
from serving import metric

TRAINER = "ann:acme:trainer"
PLENTY = "*=100000/second; predict=100000/second; unknown=100000/second"


@dataclass
class Service:
    """A service that runs, and what stands behind it."""

    server: Server
    parts: Parts
    port: int
    http: httpx.Client

    def connect(self, path: str, key: str | None = TRAINER, **options: Any) -> ClientConnection:
        headers = {**({"X-API-Key": key} if key else {}), **options.pop("headers", {})}
        about: dict[str, Any] = {"compression": None, "proxy": None, "ping_interval": None, "close_timeout": 3, "legacy": True, **options}
        return connect(f"ws://127.0.0.1:{self.port}{path}", additional_headers=headers, **about)

    def connect_narrowly(self, path: str, key: str = TRAINER) -> ClientConnection:
        """The same with little room for what comes and goes."""
        sock = socket.socket()
        for way in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, way, 2**14)
        sock.connect(("127.0.0.1", self.port))
        return self.connect(path, key, sock=sock, max_queue=1)

    def refused(self, path: str, key: str | None = TRAINER, **options: Any) -> tuple[int, dict[str, Any], Any]:
        """Status, problem document and headers of a handshake that has to fail."""
        with pytest.raises(InvalidStatus) as found:
            self.connect(path, key, **options)
        response = found.value.response
        assert response.headers["Content-Type"] == "application/problem+json"
        return response.status_code, json.loads(response.body or b"{}"), response.headers

    def raw(self, path: str, key: str = TRAINER) -> socket.socket:
        """A connection past its handshake, without anybody who reads or answers pings."""
        opened = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        opened.sendall(handshake(path, key))
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += opened.recv(1)
        assert answer.startswith(b"HTTP/1.1 101 ")
        return opened

    def closed(self, code: int) -> float:
        return metric(self.http, "finsight_sockets_closed_total", code=str(code))

    def open(self) -> float:
        return metric(self.http, "finsight_sockets_open")

    def end(self) -> None:
        """What SIGTERM does."""
        self.server.handle_exit(signal.SIGTERM, None)


@contextmanager
def service(parts: Parts, ping: float = 20.0) -> Iterator[Service]:
    """Run parts as ``finsight serve`` does, but for the signal."""
    made = server(parts, "127.0.0.1", 0, 0.0)
    made.config.ws_ping_interval = made.config.ws_ping_timeout = ping
    with at_work(made) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
        yield Service(made, parts, port, http)


def parts_with(queue: RedisQueue | None = None, allowance: str = PLENTY, limits: SocketLimits | None = None, **given: Any) -> Parts:
    """Parts around a model that knows nothing, whose keys say who presents them."""
    jobs = Jobs(queue, lambda kind, parameters, tenant, owner: Order(kind, parameters, tenant, owner)) if queue else None
    about: dict[str, Any] = {"gate": Badges(), "rules": rules(allowance), "own": None, **predicting(), **given}
    return Parts(jobs=jobs, sockets=Sockets(limits or SocketLimits()), **about)


def handshake(path: str, key: str, *more: str) -> bytes:
    """The head of one, with more headers."""
    nonce = base64.b64encode(os.urandom(16)).decode()
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade", *more]
    lines += [f"Sec-WebSocket-Key: {nonce}", "Sec-WebSocket-Version: 13", *([f"X-API-Key: {key}"] if key else [])]
    return "\r\n".join([*lines, "", ""]).encode()


def frame(opcode: int, payload: bytes, fin: bool = True) -> bytes:
    """A frame of a client's."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else struct.pack("!BH", 0xFE, size) if size < 2**16 else struct.pack("!BQ", 0xFF, size)
    return bytes([opcode | 0x80 * fin]) + length + bytes(4) + payload  # masked by zeros


def close_of(data: bytes) -> int:
    """The code of the close frame that some frames of the service end with."""
    code = 0
    while data:
        size, start = data[1] & 0x7F, 2
        if size == 126:
            size, start = struct.unpack("!H", data[2:4])[0], 4
        if data[0] == 0x88:
            code = struct.unpack("!H", data[start : start + 2])[0]
        data = data[start + size :]
    return code


def drop(client: ClientConnection) -> None:
    """End a connection as a network that breaks down does."""
    client.socket.shutdown(socket.SHUT_RDWR)


def until(happens: Callable[[], object], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def rest(client: ClientConnection, seconds: float = 30) -> tuple[list[dict[str, Any]], int, str]:
    """All further messages, and with which code and reason it was closed."""
    found = []
    try:
        while True:
            found.append(json.loads(client.recv(timeout=seconds)))
    except ConnectionClosed as closed:
        end = closed.rcvd
    assert end, "closed without a close frame"
    return found, end.code, end.reason


class Told:
    """A job that a worker has taken, of whom a test says what it says."""

    def __init__(self, queue: RedisQueue, tenant: str = "acme") -> None:
        self.queue = queue
        self._seed = time.time_ns()
        self.job: Job = queue.submit(Order(Kind.TRAIN, {"seed": self._seed}, tenant, "ann"))[0]
        self.path = f"/v1/ws/jobs/{self.job.id}"
        self._number = 0
        self.lease: Lease | None = None

    def begin(self) -> Told:
        while (lease := self.queue.take("a worker")) and lease.job.id != self.job.id:
            pass  # of a test before
        assert lease
        self.lease = lease
        return self

    def say(self, *events: dict[str, Any]) -> None:
        assert self.lease
        self._number += 1
        self.queue.tell(self.lease, self._number, events)

    def log(self, *lines: str) -> None:
        self.say(*({"type": "log", "line": line} for line in lines))

    def end(self, ending: Ending = Ending.SUCCEEDED) -> None:
        assert self.lease
        assert self.queue.end(self.lease, Outcome(ending))

    def all(self) -> list[dict[str, Any]]:
        """Everything that was said of it, as clients see it."""
        return [{"cursor": event.cursor, **event.content} for event in self.queue.events(self.job.id, limit=100_000)]


def lines_of(events: list[dict[str, Any]]) -> list[str]:
    return [event["line"] for event in events if event["type"] == "log"]


def quick(**changes: Any) -> SocketLimits:
    """Limits with times that tests can wait for."""
    return replace(SocketLimits(), **{"recheck": 0.2, **changes})
