"""`make pin-images` against a server that speaks the registry's protocol (OCI distribution)."""

import hashlib
import http.server
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from conftest import REPO
from servers import free_port, serving

INDEX = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}).encode()
DIGEST = f"sha256:{hashlib.sha256(INDEX).hexdigest()}"
SCOPE = "repository:team/base:pull"


class Registry(http.server.BaseHTTPRequestHandler):
    """Has team/base:1.2.3 for whoever fetches a token first, and team/bent:1.2.3, whose manifest is not what its digest says."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/token":
            assert parse_qs(parts.query) == {"service": ["registry"], "scope": [SCOPE]}
            self.answer(200, json.dumps({"token": "good for a pull"}).encode())
        elif parts.path == "/v2/team/bent/manifests/1.2.3":
            self.answer(200, INDEX, {"Docker-Content-Digest": f"sha256:{'0' * 64}"})
        elif parts.path != "/v2/team/base/manifests/1.2.3":
            self.answer(404, b"{}")
        elif self.headers["Authorization"] != "Bearer good for a pull":
            realm = f"http://127.0.0.1:{self.server.server_address[1]}/token"
            self.answer(401, b"{}", {"WWW-Authenticate": f'Bearer realm="{realm}",service="registry",scope="{SCOPE}"'})
        else:
            assert "application/vnd.oci.image.index.v1+json" in self.headers["Accept"]
            self.answer(200, INDEX, {"Docker-Content-Digest": DIGEST})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[str]:
    with serving(Registry) as url:
        yield url.removeprefix("http://")


def pin(*paths: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, REPO / "deploy/pin_images.py", *paths], capture_output=True, text=True)


def test_tags_get_the_digest_that_the_registry_has(registry: str, tmp_path: Path) -> None:
    dockerfile, compose = tmp_path / "a.Dockerfile", tmp_path / "compose.yaml"
    dockerfile.write_text(f"FROM {registry}/team/base:1.2.3 AS build\nRUN true\nFROM build AS last\nCOPY --from=build /a /a\n")
    old = f"sha256:{'1' * 64}"
    compose.write_text(f"services:\n  a:\n    image: {registry}/team/base:1.2.3@{old}\n  b:\n    build: .\n")
    done = pin(dockerfile, compose)
    assert (done.returncode, done.stderr) == (0, "")
    pinned = f"{registry}/team/base:1.2.3@{DIGEST}"
    assert dockerfile.read_text() == f"FROM {pinned} AS build\nRUN true\nFROM build AS last\nCOPY --from=build /a /a\n"
    assert compose.read_text() == f"services:\n  a:\n    image: {pinned}\n  b:\n    build: .\n"
    assert pin(dockerfile, compose).returncode == 0
    assert dockerfile.read_text().count("@sha256") == 1


def test_what_is_built_here_is_asked_of_no_registry(tmp_path: Path) -> None:
    compose = tmp_path / "compose.yaml"
    compose.write_text(before := "services:\n  a:\n    image: finsight/serving:0.1.0\n    build: .\n")
    done = pin(compose)
    assert (done.returncode, done.stderr, compose.read_text()) == (0, "", before)


def test_no_digest_is_made_up(registry: str, tmp_path: Path) -> None:
    dockerfile = tmp_path / "a.Dockerfile"
    away = f"127.0.0.1:{free_port()}"
    before = f"FROM {registry}/team/none:1.2.3\nFROM {registry}/team/bent:1.2.3\nFROM {away}/team/base:1.2.3\n"
    dockerfile.write_text(before + f"FROM {registry}/team/base:1.2.3\n")
    done = pin(dockerfile)
    assert done.returncode == 1
    assert dockerfile.read_text() == before + f"FROM {registry}/team/base:1.2.3@{DIGEST}\n"
    said = sorted(done.stderr.splitlines())
    assert len(said) == 3
    assert any("team/none:1.2.3" in line and "answers 404" in line for line in said)
    assert any("team/bent:1.2.3" in line and f"and sends {DIGEST}" in line for line in said)
    assert any(away in line and "does not answer" in line for line in said)
    assert all(line.endswith("; left as it was") for line in said)


def test_short_names_are_the_hubs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPO / "deploy")
    from pin_images import HUB, Image

    assert Image("redis", "8").place() == (HUB, "library/redis")
    assert Image("prom/prometheus", "v3").place() == (HUB, "prom/prometheus")
    assert Image("docker.io/prom/prometheus", "v3").place() == (HUB, "prom/prometheus")
    assert Image("ghcr.io/a/b", "1").place() == ("ghcr.io", "a/b")
    assert Image("localhost:5000/b", "1").place() == ("localhost:5000", "b")
