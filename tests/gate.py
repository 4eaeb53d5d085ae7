"""What may stand between us and an MLflow server: a proxy that asks who is there, fails, cuts off or dawdles; TLS."""

import base64
import datetime
import http.client
import http.server
import ipaddress
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from servers import serving


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@dataclass
class Gate:
    """A reverse proxy and its ways to misbehave."""

    accepted: set[str] = field(default_factory=set)
    """Values of Authorization that it lets through; all, where it is empty."""
    refusal: tuple[int, str, bytes] = (401, "text/html", b"<html>Unauthorized</html>")
    failures: list[int] = field(default_factory=list)
    """Statuses of the first answers."""
    cuts: int = 0
    """How many artifacts end in their middle."""
    dawdle: float = 0.0
    """Seconds until an answer to an upload."""
    silent: bool = False
    """Whether it takes requests and never answers."""
    url: str = ""
    peers: set[tuple[str, int]] = field(default_factory=set)
    """Who has connected, by address and port: each a connection."""
    asked: list[str] = field(default_factory=list)


@contextmanager
def gate_before(upstream: str) -> Iterator[Gate]:
    """A gate at work before a server."""
    gate = Gate()
    target = urlsplit(upstream)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            gate.peers.add(self.client_address)
            gate.asked.append(f"{self.command} {self.path}")
            if gate.silent:
                time.sleep(5)
                self.close_connection = True
            elif gate.accepted and self.headers.get("Authorization") not in gate.accepted:
                status, kind, content = gate.refusal
                self.reply(status, {"Content-Type": kind}, content)
            elif gate.failures:
                self.reply(gate.failures.pop(0), {}, b"")
            else:
                self.forward(body)

        def forward(self, body: bytes) -> None:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection", "authorization")}
            link = http.client.HTTPConnection(str(target.hostname), target.port or 80, timeout=60)
            link.request(self.command, self.path, body, headers)
            answer = link.getresponse()
            content = answer.read()
            link.close()
            if self.command == "PUT":
                time.sleep(gate.dawdle)
            self.reply(answer.status, {"Content-Type": answer.headers.get("Content-Type", "")}, content)

        def reply(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for key, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(key, value)
            self.end_headers()
            if gate.cuts and self.command == "GET" and "/mlflow-artifacts/artifacts/" in self.path:
                gate.cuts -= 1
                content, self.close_connection = content[: len(content) // 2], True
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.answer)
    with serving(Handler) as gate.url:
        yield gate


@dataclass(frozen=True)
class Certificates:
    """PEM files: the authority, and key and certificate of 127.0.0.1 that it has signed."""

    authority: Path
    key: Path
    certificate: Path


def certificates(folder: Path) -> Certificates:
    """A local authority and what it has signed."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    made = Certificates(folder / "ca.pem", folder / "key.pem", folder / "cert.pem")
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in ("a local authority", "127.0.0.1")]

    def sign(name: x509.Name, public: ec.EllipticCurvePublicKey, extension: x509.ExtensionType) -> bytes:
        builder = x509.CertificateBuilder(names[0], name, public, x509.random_serial_number(), now - day, now + day)
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    made.authority.write_bytes(sign(names[0], authority.public_key(), x509.BasicConstraints(ca=True, path_length=None)))
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made.certificate.write_bytes(sign(names[1], key.public_key(), address))
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    made.key.write_bytes(key.private_bytes(*plain))
    return made
