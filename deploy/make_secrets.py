"""Write the secrets of the compose file that are not there yet: `make secrets`. deploy/secrets/README.md says what each is."""

from __future__ import annotations

import datetime
import hashlib
import secrets
import sys
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pyrage
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from finsight.files import atomic_file

FOLDER = Path(__file__).resolve().parent / "secrets"
DAYS = 365
HOSTS = ("localhost", "finsight.localhost")


def token() -> str:
    """A password that is good in URLs and ini files."""
    return secrets.token_urlsafe(24)


def redis() -> Iterator[tuple[str, str]]:
    """Redis's users, and the address with the password of the one."""
    password = token()
    yield "redis_users", f"user default on #{hashlib.sha256(password.encode()).hexdigest()} ~* &* +@all\n"
    yield "redis_url", f"redis://:{password}@redis:6379/0\n"


def s3() -> Iterator[tuple[str, str]]:
    """The bucket's user."""
    key = token()
    yield "s3_secret_key", key
    yield "s3_credentials", f"[default]\naws_access_key_id = finsight\naws_secret_access_key = {key}\n"


def minio() -> Iterator[tuple[str, str]]:
    """MinIO's root."""
    yield "minio_root_user", "root"
    yield "minio_root_password", token()


def tls() -> Iterator[tuple[str, str]]:
    """A certificate for this machine alone, self-signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOSTS[0])]), datetime.datetime.now(datetime.UTC)
    hosts: list[x509.GeneralName] = [*map(x509.DNSName, HOSTS), x509.IPAddress(ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    yield "tls_certificate", certificate.public_bytes(pem).decode()
    yield "tls_key", key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


def single(name: str, make: Callable[[], str]) -> Callable[[], Iterator[tuple[str, str]]]:
    """A secret that has no other half."""
    return lambda: iter([(name, make())])


GROUPS: dict[tuple[str, ...], Callable[[], Iterator[tuple[str, str]]]] = {
    ("api_key",): single("api_key", token),
    ("encryption_key",): single("encryption_key", lambda: str(pyrage.x25519.Identity.generate())),
    ("redis_users", "redis_url"): redis,
    ("minio_root_user", "minio_root_password"): minio,
    ("s3_secret_key", "s3_credentials"): s3,
    ("tls_certificate", "tls_key"): tls,
    ("grafana_password",): single("grafana_password", token),
    ("slack_webhook",): single("slack_webhook", lambda: "https://slack.invalid/put-your-webhook-here"),
    ("smtp_password",): single("smtp_password", lambda: "put-the-password-of-your-mail-server-here"),
}


def main(folder: Path = FOLDER) -> int:
    """Write what is lacking; half of a pair is an error, since the other half would not fit."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o700)
    for names, make in GROUPS.items():
        there = [name for name in names if (folder / name).is_file()]
        if there and len(there) < len(names):
            print(
                f"error: {folder}: there is {', '.join(there)}, but not the rest of {', '.join(names)}; remove it or bring it back",
                file=sys.stderr,
            )
            return 1
        if there:
            continue
        for name, content in make():
            with atomic_file(folder / name) as partial:
                partial.write_text(content, encoding="utf-8")
                partial.chmod(0o644)  # a container's user is another; the folder keeps this machine's users out
            print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
