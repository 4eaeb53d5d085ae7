"""A server that speaks the part of GitHub's API that a comment with images takes, over TLS, its git objects in a real repository."""

import base64
import datetime
import http.server
import ipaddress
import json
import os
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servers import serving

BOT = "github-actions[bot]"
TOKEN = "token-of-the-run"


def certificate(folder: Path) -> Path:
    """A certificate of its own for 127.0.0.1 and its key, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
    made = made.add_extension(address, critical=False).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    path = folder / "server.pem"
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    path.write_bytes(pem + made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return path


@dataclass
class GitHub:
    """Repository ``repo``: the comments of its one pull request, and a bare repository with the objects that were sent."""

    folder: Path
    repo: str = "owner/model"
    url: str = ""
    comments: list[dict[str, Any]] = field(default_factory=list)
    rivals: int = 0
    """How many of the next moves of a branch fail since somebody else was first."""

    @property
    def certificates(self) -> Path:
        return self.folder / "server.pem"

    def git(self, *command: str, content: bytes | None = None, **env: str) -> bytes:
        git = ["git", "-C", str(self.folder / "git"), "-c", "user.name=t", "-c", "user.email=t@example.org"]
        return subprocess.run([*git, *command], input=content, env={**os.environ, **env}, capture_output=True, check=True).stdout.strip()

    def by(self, login: str) -> list[dict[str, Any]]:
        return [comment for comment in self.comments if comment["user"]["login"] == login]

    def say(self, login: str, body: str) -> dict[str, Any]:
        number = len(self.comments) + 1
        self.comments.append({"id": number, "user": {"login": login}, "body": body, "html_url": f"{self.url}/c{number}"})
        return self.comments[-1]

    def answer(self, method: str, path: str, sent: dict[str, Any]) -> tuple[int, Any]:
        match method, path.split("?")[0].removeprefix(f"/api/v3/repos/{self.repo}/").split("/"):
            case "GET", ["issues", "7", "comments"]:
                return 200, self.comments
            case "POST", ["issues", "7", "comments"]:
                return 201, self.say(BOT, sent["body"])
            case "PATCH", ["issues", "comments", number]:
                comment = self.comments[int(number) - 1]
                comment["body"] = sent["body"]
                return 200, comment
            case "POST", ["git", "blobs"]:
                content = base64.b64decode(sent["content"])
                return 201, {"sha": self.git("hash-object", "-w", "--stdin", content=content).decode()}
            case "POST", ["git", "trees"]:
                index = {"GIT_INDEX_FILE": str(self.folder / "index")}
                self.git("read-tree", sent.get("base_tree", "--empty"), **index)
                for entry in sent["tree"]:
                    self.git("update-index", "--add", "--cacheinfo", f"{entry['mode']},{entry['sha']},{entry['path']}", **index)
                return 201, {"sha": self.git("write-tree", **index).decode()}
            case "POST", ["git", "commits"]:
                parents = [word for parent in sent["parents"] for word in ("-p", parent)]
                return 201, {"sha": self.git("commit-tree", sent["tree"], *parents, "-m", sent["message"]).decode()}
            case "GET", ["git", "commits", commit]:
                return 200, {"tree": {"sha": self.git("rev-parse", f"{commit}^{{tree}}").decode()}}
            case "GET", ["git", "ref", *name] if found := self.git("for-each-ref", "--format=%(objectname)", "refs/" + "/".join(name)):
                return 200, {"object": {"sha": found.decode()}}
            case "PATCH", ["git", "refs", *name] if not self.rivals:
                self.git("merge-base", "--is-ancestor", "refs/" + "/".join(name), sent["sha"])
                self.git("update-ref", "refs/" + "/".join(name), sent["sha"])
                return 200, {}
            case "PATCH", ["git", "refs", *_]:
                self.rivals -= 1
                return 422, {"message": "Update is not a fast forward"}
            case "POST", ["git", "refs"]:
                self.git("update-ref", sent["ref"], sent["sha"], "0" * 40)
                return 201, {}
            case _:
                return 404, {"message": "Not Found"}


@contextmanager
def serve_github(folder: Path) -> Iterator[GitHub]:
    """A GitHub of one's own."""
    state = GitHub(folder)
    subprocess.run(["git", "init", "-q", "--bare", folder / "git"], check=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate(folder))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent = json.loads(self.sent() or "{}")
            known = self.headers["Authorization"] == f"token {TOKEN}"
            status, said = state.answer(self.command, self.path, sent) if known else (401, {"message": "Bad credentials"})
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def sent(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            return content

        def do_POST(self) -> None:
            self.do_GET()

        def do_PATCH(self) -> None:
            self.do_GET()

        def log_message(self, *args: object) -> None:
            pass

    with serving(Handler, tls) as state.url:
        yield state
