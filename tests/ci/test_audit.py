"""`make audit` against a live OSV service of ours, asked by the real pip-audit."""

import json
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from conftest import REPO

sys.path.insert(0, str(REPO / ".ci"))
from audit import wrong

KNOWN = {
    "jinja2": [
        {
            "id": "GHSA-h75v-3vvj-5mfj",
            "aliases": ["CVE-2024-34064"],
            "modified": "2024-05-06T14:20:59Z",
            "summary": "xmlattr filter takes keys with other than attribute characters",
            "affected": [
                {
                    "package": {"name": "jinja2", "ecosystem": "PyPI"},
                    "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "3.1.4"}]}],
                }
            ],
        }
    ]
}


class Osv(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        vulns = KNOWN.get(asked["package"]["name"], []) if asked["version"] == "3.1.3" else []
        body = json.dumps({"vulns": vulns} if vulns else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def osv() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Osv) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()
        thread.join()


def audit(folder: Path, osv: str, pins: str, policy: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "pins.txt").write_text(pins)
    (folder / "audit.toml").write_text(policy)
    where = ["--pins", str(folder / "pins.txt"), "--policy", str(folder / "audit.toml")]
    command = [sys.executable, str(REPO / ".ci/audit.py"), *where, "--osv", osv]
    return subprocess.run(command, capture_output=True, text=True)


def accepted(until: date, **other: str) -> str:
    entry = {"id": "CVE-2024-34064", "package": "jinja2", "reason": "the filter is used nowhere here"} | other
    return "[[accepted]]\n" + "".join(f'{key} = "{value}"\n' for key, value in entry.items()) + f"until = {until}\n"


SOON = date.today() + timedelta(days=30)


def test_a_known_vulnerability_fails(tmp_path: Path, osv: str) -> None:
    done = audit(tmp_path, osv, "jinja2==3.1.3\nclick==8.5.1\n")
    assert (done.returncode, done.stderr) == (1, "error: jinja2 3.1.3: CVE-2024-34064, fixed in 3.1.4\n")


@pytest.mark.long
def test_nothing_known_passes_and_so_does_what_is_accepted(tmp_path: Path, osv: str) -> None:
    assert audit(tmp_path, osv, "jinja2==3.1.6\n").stdout == "nothing is known against 1 packages; 0 findings are accepted\n"
    assert audit(tmp_path, osv, "jinja2==3.1.3\n", accepted(SOON)).returncode == 0


@pytest.mark.long
def test_what_is_accepted_of_another_package_does_not_count(tmp_path: Path, osv: str) -> None:
    assert audit(tmp_path, osv, "jinja2==3.1.3\n", accepted(SOON, package="markupsafe")).returncode == 1


@pytest.mark.parametrize(
    ("policy", "line"),
    [
        (accepted(date.today() - timedelta(days=1)), "was accepted until"),
        (accepted(date.today() + timedelta(days=400)), "expected six months at most"),
        (accepted(SOON, reason=""), "lacks reason"),
    ],
    ids=["expired", "for too long", "without a reason"],
)
def test_a_policy_that_has_run_out_fails(policy: str, line: str) -> None:
    [problem] = wrong(tomllib.loads(policy)["accepted"], date.today())
    assert line in problem


@pytest.mark.long
def test_an_expired_finding_fails_the_audit_though_nothing_is_found(tmp_path: Path, osv: str) -> None:
    done = audit(tmp_path, osv, "jinja2==3.1.6\n", accepted(date.today() - timedelta(days=1)))
    assert done.returncode == 1
    assert "was accepted until" in done.stderr


@pytest.mark.long
def test_no_answer_is_not_no_finding(tmp_path: Path) -> None:
    done = audit(tmp_path, "http://127.0.0.1:9/v1/query", "click==8.5.1\n")
    assert done.returncode == 2
    assert "can't be asked, so nothing is known" in done.stderr


def test_the_policy_that_is_shipped_holds_today() -> None:
    assert list(wrong(tomllib.loads((REPO / ".ci/audit.toml").read_text())["accepted"], date.today())) == []
