"""Signatures by OpenSSF model-signing in its key mode: elliptic curves, PEM files, no network, no account.

A signature is a sigstore bundle: anybody can check it with ``model_signing verify key``.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from finsight.errors import ArtifactError, ParamsError
from finsight.files import atomic_file

DEVELOPMENT_KEY = Path(".signing/development.pem")
_PEM = "-----BEGIN"


@dataclass(frozen=True, slots=True)
class Key:
    """A private key to sign with.

    :param pem: PKCS #8 in PEM.
    :param development: whether it was made on this machine because nobody gave one.
    """

    pem: bytes
    password: bytes | None = None
    development: bool = False

    def public(self) -> bytes:
        """The public half, in PEM.

        :raises ParamsError: when the key can't be read or is none that model-signing takes.
        """
        return (
            _private(self.pem, self.password)
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )


def key_id(public: bytes) -> str:
    """What a signature calls a key: the SHA-256 of its public half in PEM."""
    return hashlib.sha256(public).hexdigest()


def given_key(given: str, password: str | None) -> Key:
    """The key of ``FINSIGHT_SIGNING_KEY``: a PEM text, or the path of one.

    :raises ParamsError: when there is none, or it can't be read.
    """
    try:
        pem = given.encode() if given.lstrip().startswith(_PEM) else Path(given).expanduser().read_bytes()
    except OSError as error:
        raise ParamsError(f"FINSIGHT_SIGNING_KEY: neither a PEM text nor a file that can be read ({error.strerror})") from None
    key = Key(pem, password.encode() if password else None)
    key.public()
    return key


def development_key(root: Path, make: bool = True) -> Key | None:
    """The key of this clone for want of a given one, made at the first use; of processes that make it at once, one wins.

    :param make: otherwise it is None where there is none yet.
    """
    path = root / DEVELOPMENT_KEY
    if not path.exists():
        if not make:
            return None
        path.parent.mkdir(mode=0o700, exist_ok=True)
        pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with _private_file(pem, path.parent) as made, contextlib.suppress(FileExistsError):
            os.link(made, path)
    return Key(path.read_bytes(), development=True)


def trusted_key(path: Path) -> bytes:
    """A public key, in the form in which signatures name it.

    :raises ParamsError: when there is none.
    """
    try:
        key = serialization.load_pem_public_key(path.expanduser().read_bytes())
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else "no public key in PEM"
        raise ParamsError(f"FINSIGHT_TRUSTED_KEYS: {path}: {said}; key.pub beside a signed bundle is one") from None
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


class ModelSigner:
    """See :class:`finsight.ports.Signer`.

    :param key: what it signs with; None for one that only checks.
    :param trusted: public keys in PEM whose signatures count; that of ``key`` is one of them.
    """

    def __init__(self, key: Key | None, trusted: Sequence[bytes] = ()) -> None:
        self._given = key
        self._trusted = {key_id(public): public for public in (*trusted, *([key.public()] if key else []))}

    @property
    def _key(self) -> Key:
        if self._given is None:
            raise ParamsError("there is no key to sign with; set FINSIGHT_SIGNING_KEY")
        return self._given

    @property
    def public(self) -> bytes:
        """The public half of the key, in PEM."""
        return self._key.public()

    @property
    def key_id(self) -> str:
        """See :func:`key_id`."""
        return key_id(self.public)

    @property
    def development(self) -> bool:
        """Whether the key is one that nobody gave."""
        return self._key.development

    def trusts(self, key: str) -> bool:
        """See :class:`finsight.ports.Signer`."""
        return key in self._trusted

    def sign(self, target: Path, signature: Path) -> None:
        """See :class:`finsight.ports.Signer`."""
        from model_signing import signing

        with atomic_file(signature) as partial, _private_file(self._key.pem, signature.parent) as key:
            # Typed as text, and handed to a function that takes bytes.
            signing.Config().use_elliptic_key_signer(private_key=key, password=self._key.password).sign(target, partial)

    def check(self, target: Path, signature: Path, also: bytes = b"") -> str:
        """See :class:`finsight.ports.Signer`."""
        from model_signing import verifying

        named = _named_key(signature)
        trusted = self._trusted | ({key_id(also): also} if also else {})
        if named not in trusted:
            raise ArtifactError(
                f"{signature}: made with the key {named[:12]}…, which is not trusted here; if you know whose it is, put the path of its "
                "public half into FINSIGHT_TRUSTED_KEYS"
            )
        with tempfile.TemporaryDirectory() as folder:
            public = Path(folder) / "key.pub"
            public.write_bytes(trusted[named])
            try:
                verifying.Config().use_elliptic_key_verifier(public_key=public).verify(target, signature)
            # The library and what it parses with raise what they like, at a file that anybody may have written.
            except Exception as error:  # noqa: BLE001
                said = " ".join(str(error).split())[:200] or type(error).__name__
                raise ArtifactError(f"{target}: not what {signature.name} signs: {said}; don't use it") from None
        return named


def _named_key(signature: Path) -> str:
    """The key that a signature says it was made with.

    :raises ArtifactError: when it is none, or has bytes that its signer did not write: JSON and base64 can be changed without
        changing what they mean.
    """
    if not signature.is_file():
        raise ArtifactError(f"{signature}: no such file, so nothing says who made it; `dvc repro register` signs")
    text = signature.read_bytes()
    try:
        content = json.loads(text)
        named = content["verificationMaterial"]["publicKey"]["hint"]
        envelope = content["dsseEnvelope"]
        (made,) = envelope["signatures"]
        as_written = {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"publicKey": {"hint": named}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": _base64_again(envelope["payload"]),
                "payloadType": "application/vnd.in-toto+json",
                "signatures": [{"sig": _base64_again(made["sig"]), "keyid": ""}],
            },
        }
        if json.dumps(as_written, separators=(",", ":")).encode() == text:
            return str(named)
    except (ValueError, KeyError, TypeError):
        pass
    raise ArtifactError(f"{signature}: no signature as model-signing writes it; don't use what it is said to sign")


def _base64_again(text: str) -> str:
    return base64.b64encode(base64.b64decode(text, validate=True)).decode()


def _private(pem: bytes, password: bytes | None) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password)
    except (ValueError, TypeError) as error:  # without the text, which may quote the key
        raise ParamsError(
            f"FINSIGHT_SIGNING_KEY: no private key in PEM, or FINSIGHT_SIGNING_PASSWORD doesn't open it ({type(error).__name__})"
        ) from None
    if not (isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in ("secp256r1", "secp384r1", "secp521r1")):
        raise ParamsError("FINSIGHT_SIGNING_KEY: expected an elliptic-curve key on P-256, P-384 or P-521 (`openssl ecparam -genkey`)")
    return key


@contextmanager
def _private_file(content: bytes, folder: Path) -> Iterator[Path]:
    """A file that nobody else can read, as long as the block runs."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, suffix=".partial")  # mkstemp makes it with mode 600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
