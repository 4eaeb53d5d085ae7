"""Fixtures: real servers on loopback, MLflow, S3, a hub, and a web server that misbehaves on demand."""

import hashlib
import http.server
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import pytest


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_for(url: str, process: subprocess.Popen[bytes], seconds: float = 90, tls: ssl.SSLContext | None = None) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, f"the server behind {url} ended with {process.returncode}"
        try:
            urllib.request.urlopen(url, timeout=2, context=tls).close()
        except urllib.error.HTTPError:
            return  # it answers
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"nothing at {url} after {seconds} s")


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/m.db", "--port", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--artifacts-destination", str(folder / "artifacts"), "--workers", "1"], cwd=folder, stdout=log, stderr=log
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A live Redis; its address."""
    from finsight.adapters.redis_server import embedded

    with embedded(tmp_path_factory.mktemp("redis")) as address:
        yield address


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """A live Redis with nothing in it; its address."""
    from redis import Redis

    with Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server


S3_KEY, S3_SECRET = "testkey", "testsecret"


@contextmanager
def serve_s3(root: Path, *options: str, port: int | None = None, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """An S3 server over a folder, whose subfolders are its buckets; its endpoint.

    :param options: more of `rclone serve s3`, such as ``--bwlimit``.
    :param tls: what its certificate is checked by where it has one (``--cert``, ``--key``).
    """
    port = port or free_port()
    url = f"http{'s' if tls else ''}://127.0.0.1:{port}"
    rclone = Path(sys.executable).parent / "rclone"
    environment = {**os.environ, "RCLONE_AUTH_KEY": f'"{S3_KEY},{S3_SECRET}"'}
    process = subprocess.Popen(
        [rclone, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--dir-cache-time", "100ms", *options, str(root)],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(url, process, tls=tls)
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """An S3 server: its endpoint and the folder whose subfolders are its buckets."""
    root = tmp_path_factory.mktemp("s3")
    with serve_s3(root) as url:
        yield url, root


@pytest.fixture
def s3_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", S3_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", S3_SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """A handler at work on loopback; its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve_hub(kind: str, repository: str, files: Mapping[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """A server that speaks the hub's protocol for one repository (kind: models or datasets) at COMMIT; its address, the paths asked for."""
    asked: list[str] = []
    place = repository if kind == "models" else f"{kind}/{repository}"

    class Hub(http.server.BaseHTTPRequestHandler):
        def answer(self, body: bool) -> None:
            asked.append(self.path)
            name = unquote(self.path.partition(f"/resolve/{COMMIT}/")[2])
            content, headers = b"", {}
            listed: object = None
            if self.path.startswith(f"/api/{kind}/{repository}/revision/{COMMIT}"):
                listed = {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": n} for n in files]}
            elif self.path.startswith(f"/api/{kind}/{repository}/tree/{COMMIT}"):
                listed = [{"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()} for n, c in files.items()]
            if listed is not None:
                content, headers = json.dumps(listed).encode(), {"Content-Type": "application/json"}
            elif self.path.startswith(f"/{place}/resolve/{COMMIT}/") and name in files:
                content = files[name]
                headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
            self.send_response(200 if headers else 404)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def do_GET(self) -> None:
            self.answer(body=True)

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def log_message(self, *args: object) -> None:
            pass

    with serving(Hub) as endpoint:
        yield endpoint, asked


@dataclass
class Web:
    """A web server of one file and its ways to misbehave, each a number of answers or a setting; ``log`` has each request's Range."""

    content: bytes = b""
    url: str = ""
    etag: str | None = '"v1"'
    modified: str | None = None
    ranges: bool = True
    cuts: int = 0
    """How many answers end after half of what they promise."""
    failures: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Status and headers of the first answers."""
    extra_length: int = 0
    """Bytes that Content-Length promises too many."""
    headers: dict[str, str] = field(default_factory=dict)
    changes: Callable[[], None] | None = None
    """Called after a cut."""
    log: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    authorization: list[str | None] = field(default_factory=list)

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range", "")
        self.log.append(wanted)
        self.paths.append(request.path)
        self.authorization.append(request.headers.get("Authorization"))
        if self.failures:
            status, headers = self.failures.pop(0)
            self.send(request, status, {"Content-Length": "0", **headers})
            return
        validator = self.etag or self.modified
        start, status, headers = 0, 200, dict(self.headers)
        if self.etag:
            headers["ETag"] = self.etag
        if self.modified:
            headers["Last-Modified"] = self.modified
        if self.ranges and wanted and request.headers.get("If-Range") == validator:
            start, status = int(wanted.removeprefix("bytes=").rstrip("-")), 206
            headers["Content-Range"] = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
        body = self.content[start:]
        headers.setdefault("Content-Length", str(len(body) + self.extra_length))
        self.send(request, status, headers)
        if self.cuts:
            self.cuts -= 1
            request.wfile.write(body[: len(body) // 2])
            if self.changes:
                self.changes()
        else:
            request.wfile.write(body)

    def send(self, request: http.server.BaseHTTPRequestHandler, status: int, headers: Mapping[str, str]) -> None:
        request.send_response(status)
        for key, value in headers.items():
            request.send_header(key, value)
        request.end_headers()


@pytest.fixture
def web() -> Iterator[Web]:
    """A server of one file at any path, which a test lets misbehave."""
    state = Web(content=b"text,label\n" + b"".join(b"row %d,positive\n" % n for n in range(20000)))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *args: object) -> None:
            pass

    with serving(Handler) as state.url:
        yield state
