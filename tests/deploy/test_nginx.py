"""The edge as it is shipped, in front of two replicas, with a certificate of a local authority."""

import contextlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from conftest import REPO, Project
from gate import certificates
from servers import free_port, wait_for

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = [pytest.mark.long, pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: nginx-light)")]
KEY = "the-admins-own-key-for-tests"
ASKED = {"texts": ["Profit rose", "Sales fell by half"]}


@dataclass
class Edge:
    """nginx and its replicas."""

    url: str
    folder: Path
    trust: ssl.SSLContext
    ports: list[int]
    replicas: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def client(self, address: str = "127.0.0.1", **headers: str) -> httpx.Client:
        """A client that connects from an address of its own: limits are by address."""
        transport = httpx.HTTPTransport(verify=self.trust, local_address=address)
        return httpx.Client(base_url=self.url, transport=transport, headers={"X-API-Key": KEY, **headers}, timeout=60)

    def answered(self, port: int) -> int:
        """Predictions that a replica has answered."""
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        return sum(int(float(n)) for n in re.findall(r'finsight_requests_total\{[^}]*route="/v1/predict"[^}]*\} (\S+)', text))

    def log(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in (self.folder / "access.log").read_text().splitlines()]


@contextmanager
def replica(root: Path, port: int, redis: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A service that believes nginx, which is on this host here."""
    settings = {"FINSIGHT_API_KEY": KEY, "FINSIGHT_REDIS_URL": redis, "FINSIGHT_TRUSTED_PROXIES": "127.0.0.1/32"}
    command = [sys.executable, "-m", "finsight.cli", "serve", "--port", str(port), "--no-worker", "--no-cache"]
    limits = {"FINSIGHT_LIMITS": "predict=100000/second"}
    process = subprocess.Popen(command, cwd=root, env={**os.environ, **settings, **limits}, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def configured(folder: Path, port: int, ports: list[int]) -> Path:
    """deploy/nginx/ for this machine: its places, its ports and its replicas; everything else is as it is shipped."""
    shipped = (REPO / "deploy/nginx/nginx.conf").read_text()
    made = certificates(folder)
    moved = {
        " /tmp/": f" {folder}/",
        "/run/secrets/tls_certificate": str(made.certificate),
        "/run/secrets/tls_key": str(made.key),
        "listen 8443": f"listen 127.0.0.1:{port}",
        "127.0.0.1:8081": f"127.0.0.1:{free_port()}",
        "/dev/stdout": f"{folder}/access.log",
    }
    for old, new in moved.items():
        assert old in shipped, old
        shipped = shipped.replace(old, new)
    (folder / "nginx.conf").write_text(shipped)
    upstream = re.sub(r"resolver .*\n", "", (REPO / "deploy/nginx/upstream.conf").read_text())
    line = re.search(r" *server api:8080 resolve (.*);\n", upstream)
    assert line
    servers = "".join(f"    server 127.0.0.1:{port} {line[1]};\n" for port in ports)
    (folder / "upstream.conf").write_text(upstream.replace(line[0], servers))
    return folder / "nginx.conf"


@contextmanager
def running(folder: Path, port: int, ports: list[int]) -> Iterator[ssl.SSLContext]:
    """nginx over a folder of its own, in front of replicas that answer; what trusts its certificate."""
    conf, owner = configured(folder, port, ports), {}
    few = ["sh", "-c", 'ulimit -Sn 1024 && exec "$@"', "sh"]  # files, as an engine may have it
    command = [*few, NGINX, "-c", conf, "-e", "stderr"]
    if os.geteuid() == 0:  # as in its image, nobody special
        subprocess.run(["chown", "-R", "101:101", folder], check=True)
        owner = {"user": 101, "group": 101, "extra_groups": []}
    tested = subprocess.run([*command, "-t"], capture_output=True, text=True, **owner)  # type: ignore[call-overload]
    assert tested.returncode == 0, tested.stderr
    assert "warn" not in tested.stderr
    nginx = subprocess.Popen([*command, "-g", "daemon off;"], **owner)  # type: ignore[call-overload]
    try:
        trust = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        wait_for(f"https://127.0.0.1:{port}/readyz", nginx, tls=trust)
        yield trust
        nginx.terminate()
        assert nginx.wait(30) == 0
    finally:
        nginx.kill()
        nginx.wait()


@pytest.fixture(scope="module")
def edge(finished: Project, redis_server: str) -> Iterator[Edge]:
    with tempfile.TemporaryDirectory(prefix="finsight-edge-") as name, ExitStack() as stack:
        folder, port, ports = Path(name), free_port(), [free_port(), free_port()]
        replicas = [stack.enter_context(replica(finished.root, one, redis_server)) for one in ports]
        for process, one in zip(replicas, ports, strict=True):
            wait_for(f"http://127.0.0.1:{one}/readyz", process)
        with running(folder, port, ports) as trust:
            yield Edge(f"https://127.0.0.1:{port}", folder, trust, ports, replicas)


def test_both_replicas_answer_over_tls(edge: Edge) -> None:
    before = [edge.answered(port) for port in edge.ports]
    with edge.client() as client:
        for _ in range(20):
            assert client.post("/v1/predict", json=ASKED).status_code == 200
    assert all(edge.answered(port) >= old + 5 for port, old in zip(edge.ports, before, strict=True))
    with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
        httpx.get(edge.url)
    old = ssl.create_default_context(cafile=str(edge.folder / "ca.pem"))
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(httpx.ConnectError):
        httpx.get(edge.url, verify=old)


def test_headers_of_security_come_once_and_the_edge_is_not_named(edge: Edge) -> None:
    with edge.client("127.0.0.3") as client:
        for path in ("/livez", "/", "/v1/models", "/metrics", "/.problem/429"):
            answer = client.get(path)
            for name in ("Strict-Transport-Security", "X-Content-Type-Options", "Content-Security-Policy", "X-Request-ID"):
                assert len(answer.headers.get_list(name)) == 1, (path, name)
            assert answer.headers["Server"] == "nginx"
        assert client.get("/metrics").json()["status"] == 404
        assert client.get("/.problem/429").status_code == 404


def test_a_correlation_id_goes_all_the_way(edge: Edge) -> None:
    with edge.client("127.0.0.4") as client:
        assert client.get("/livez", headers={"X-Request-ID": "mine-0001"}).headers["X-Request-ID"] == "mine-0001"
        given = client.get("/livez", headers={"X-Request-ID": "no good"}).headers["X-Request-ID"]
        client.get("/v1/ws/jobs/1?ticket=a-secret-ticket")
    ids = [line["correlation_id"] for line in edge.log()]
    assert {"mine-0001", given} <= set(ids)
    assert "a-secret-ticket" not in (edge.folder / "access.log").read_text()


class Told(BaseHTTPRequestHandler):
    """Answers with the headers that came to it, in the place of a replica."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({name.lower(): value for name, value in self.headers.items()}).encode())

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()


class Much(Told):
    """Answers with more than an edge should keep, and counts what was taken of it."""

    taken = 0

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(0 if self.path == "/readyz" else 128):
                self.wfile.write(bytes(2**20))
                Much.taken += 1


@contextmanager
def before(replica: type[Told], folder: Path) -> Iterator[tuple[int, ssl.SSLContext]]:
    """nginx before something that is no service; its port, and what trusts it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), replica) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = free_port()
        with running(folder, port, [server.server_port]) as trust:
            yield port, trust
        server.shutdown()


def test_its_processes_are_few_and_may_open_what_their_connections_take() -> None:
    with tempfile.TemporaryDirectory(prefix="finsight-edge-") as name, before(Told, Path(name)):
        main = (Path(name) / "nginx.pid").read_text().strip()
        workers = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        assert len(workers) == 2, "else as many as the machine has processors"
        for worker in workers:
            limit = re.search(r"^Max open files +(\d+)", Path(f"/proc/{worker}/limits").read_text(), re.M)
            assert limit
            assert int(limit[1]) >= 2 * 4096


def test_what_a_client_does_not_take_is_not_kept_for_it() -> None:
    """Its /tmp is memory: a few who ask for a large result and do not read it would be the end of it."""
    with (
        tempfile.TemporaryDirectory(prefix="finsight-edge-") as name,
        before(Much, Path(name)) as (port, trust),
        trust.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1") as client,
    ):
        client.sendall(b"GET /v1/jobs/1/result HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(3)
        assert 0 < Much.taken < 64


@pytest.mark.skipif(os.geteuid() != 0, reason="nobody else may mount a small tmpfs")
def test_a_full_tmp_is_said_and_small_predictions_go_on() -> None:
    with tempfile.TemporaryDirectory(prefix="finsight-edge-") as name:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "finsight", name], capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f"no tmpfs here: {mounted.stderr}")
        try:
            with (
                before(Told, Path(name)) as (port, trust),
                httpx.Client(verify=trust, base_url=f"https://127.0.0.1:{port}", timeout=30) as client,
            ):
                answer = client.post("/v1/predict", content=bytes(2**22))
                assert (answer.status_code, answer.headers.get("Retry-After")) == (503, "5")
                assert "full" in answer.json()["detail"]
                with (Path(name) / "fills").open("wb") as full, contextlib.suppress(OSError):
                    full.write(bytes(2**21))
                assert client.post("/v1/predict", content=bytes(60_000)).status_code == 200
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)


def test_what_only_the_edge_and_the_service_may_say_is_taken_off() -> None:
    sent = {
        "traceparent": f"00-{'1' * 32}-{'2' * 16}-01",
        "tracestate": "a=b",
        "Forwarded": "for=198.51.100.1",
        "X-Real-IP": "198.51.100.1",
    }
    with (
        tempfile.TemporaryDirectory(prefix="finsight-edge-") as name,
        before(Told, Path(name)) as (port, trust),
        httpx.Client(verify=trust, base_url=f"https://127.0.0.1:{port}") as client,
    ):
        came = client.get("/v1/me", headers={**sent, "Accept-Language": "en", "X-Forwarded-For": "198.51.100.1"}).json()
    assert not {name.lower() for name in sent} & came.keys()
    assert (came["accept-language"], came["x-forwarded-for"], came["x-forwarded-proto"]) == ("en", "127.0.0.1", "https")


def test_bodies_are_bounded_and_tables_may_be_larger(edge: Edge) -> None:
    with edge.client("127.0.0.5") as client:
        answer = client.post("/v1/predict", content=b" " * (33 * 2**20), headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.headers["Content-Type"]) == (413, "application/problem+json")
        assert answer.json()["correlation_id"] == answer.headers["X-Request-ID"]
        table = b"headline\n" + b"Profit rose by a tenth to EUR 13.1 mn in the third quarter of the year\n" * 500_000
        assert len(table) > 33 * 2**20
        assert client.post("/v1/score?text=headline", content=table, headers={"Content-Type": "text/csv"}).status_code == 202


def test_one_address_that_asks_too_often_is_told_to_wait_and_others_are_not(edge: Edge) -> None:
    def ask(client: httpx.Client, found: list[httpx.Response]) -> None:
        for _ in range(60):
            found.append(client.get("/livez"))

    found: list[httpx.Response] = []
    with edge.client("127.0.0.6") as client:
        threads = [threading.Thread(target=ask, args=(client, found)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refused = [answer for answer in found if answer.status_code == 429]
        assert {answer.status_code for answer in found} == {200, 429}
        assert refused[0].headers["Retry-After"] == "1"
        assert refused[0].json()["title"] == "Too Many Requests"
        with edge.client("127.0.0.7") as other:
            assert other.get("/livez").status_code == 200
        time.sleep(3)
        assert client.get("/livez").status_code == 200


def test_nobody_gets_another_address_by_saying_so(edge: Edge) -> None:
    """The service shuts out an address after twenty wrong keys in a minute: were the header believed, each would be another's."""
    with edge.client("127.0.0.8", **{"X-API-Key": "a-wrong-key-for-tests"}) as client:
        said = [
            client.get("/v1/me", headers={"X-Forwarded-For": f"198.51.100.{n}", "X-Real-IP": f"198.51.100.{n}"}).status_code
            for n in range(25)
        ]
    assert said[:20] == [401] * 20
    assert said[-1] == 429
    with edge.client("127.0.0.9") as client:
        assert client.get("/v1/me").status_code == 200


def test_sockets_go_through(edge: Edge) -> None:
    with connect(
        edge.url.replace("https", "wss") + "/v1/ws/predict", ssl=edge.trust, additional_headers={"X-API-Key": KEY}, open_timeout=30
    ) as socket:
        for n in range(3):
            socket.send(json.dumps({"id": n, "text": "Profit rose"}))
        assert [json.loads(socket.recv(timeout=30))["id"] for _ in range(3)] == [0, 1, 2]


def test_a_replica_that_is_killed_costs_no_prediction(edge: Edge) -> None:
    """Last, since it leaves one alone."""
    over, found, lock = threading.Event(), list[int](), threading.Lock()

    def ask(address: str) -> None:
        with edge.client(address) as client:
            while not over.is_set():
                status = client.post("/v1/predict", json=ASKED).status_code
                with lock:
                    found.append(status)
                time.sleep(0.05)  # below the limit of an address

    threads = [threading.Thread(target=ask, args=(f"127.0.1.{n}",)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    edge.replicas[0].kill()
    edge.replicas[0].wait()
    time.sleep(3)
    over.set()
    for thread in threads:
        thread.join()
    assert len(found) > 50
    assert set(found) == {200}
    alone = edge.answered(edge.ports[1])
    with edge.client() as client:
        assert client.get("/readyz").status_code == 200
        edge.replicas[1].terminate()
        assert edge.replicas[1].wait(60) == 0
        answer = client.get("/readyz")
        assert (answer.status_code, answer.headers["Retry-After"], answer.json()["status"]) == (503, "5", 503)
    assert alone > 0
