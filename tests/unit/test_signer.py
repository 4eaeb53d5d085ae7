"""Keys and signatures, with the real model-signing."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from finsight.adapters.signer import DEVELOPMENT_KEY, Key, ModelSigner, development_key, given_key, key_id, trusted_key
from finsight.errors import ArtifactError, ParamsError

PKCS8, PEM = serialization.PrivateFormat.PKCS8, serialization.Encoding.PEM


def private(password: bytes | None = None) -> str:
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return ec.generate_private_key(ec.SECP384R1()).private_bytes(PEM, PKCS8, how).decode()


@pytest.fixture
def signer(tmp_path: Path) -> ModelSigner:
    made = development_key(tmp_path)
    assert made
    return ModelSigner(made)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "a.onnx").write_bytes(bytes(range(256)))
    (folder / "bundle.json").write_text("{}\n")
    return folder


def test_a_folder_and_a_file_are_signed(signer: ModelSigner, bundle: Path, tmp_path: Path) -> None:
    for target in (bundle, bundle / "bundle.json"):
        signer.sign(target, tmp_path / "x.sig")
        assert signer.check(target, tmp_path / "x.sig") == signer.key_id == key_id(signer.public)


def test_anybody_can_check_it_with_the_tool_of_the_standard(signer: ModelSigner, bundle: Path, tmp_path: Path) -> None:
    signer.sign(bundle, tmp_path / "x.sig")
    (tmp_path / "key.pub").write_bytes(signer.public)
    command = [sys.executable, "-m", "model_signing", "verify", "key", "bundle", "--signature", "x.sig", "--public_key", "key.pub"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0
    (bundle / "a.onnx").write_bytes(b"x")
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode != 0


@pytest.mark.parametrize("change", ["flip", "add", "remove", "rename"])
def test_a_changed_folder_is_refused(change: str, signer: ModelSigner, bundle: Path, tmp_path: Path) -> None:
    signer.sign(bundle, tmp_path / "x.sig")
    if change == "flip":
        content = bytearray((bundle / "a.onnx").read_bytes())
        content[7] ^= 1
        (bundle / "a.onnx").write_bytes(content)
    elif change == "add":
        (bundle / "more").write_text("")
    elif change == "remove":
        (bundle / "bundle.json").unlink()
    else:
        (bundle / "a.onnx").rename(bundle / "b.onnx")
    with pytest.raises(ArtifactError, match="not what x.sig signs"):
        signer.check(bundle, tmp_path / "x.sig")


def test_every_flipped_bit_of_a_signature_is_refused(signer: ModelSigner, bundle: Path, tmp_path: Path) -> None:
    signature = tmp_path / "x.sig"
    signer.sign(bundle / "bundle.json", signature)
    content = signature.read_bytes()
    for i in range(len(content)):
        for bit in (1, 32):  # another character, and the other case of it, which is another base64 digit
            signature.write_bytes(content[:i] + bytes([content[i] ^ bit]) + content[i + 1 :])
            with pytest.raises(ArtifactError):
                signer.check(bundle / "bundle.json", signature)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"verificationMaterial": 3}', "\x00"])
def test_what_is_no_signature_is_refused(content: str, signer: ModelSigner, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "x.sig").write_text(content)
    with pytest.raises(ArtifactError, match="no signature as model-signing writes it"):
        signer.check(bundle, tmp_path / "x.sig")
    with pytest.raises(ArtifactError, match="no such file"):
        signer.check(bundle, tmp_path / "gone.sig")


def test_another_s_key_counts_once_it_is_trusted(bundle: Path, tmp_path: Path) -> None:
    theirs, ours = ModelSigner(given_key(private(), None)), given_key(private(), None)
    theirs.sign(bundle, tmp_path / "x.sig")
    with pytest.raises(ArtifactError, match="which is not trusted here; .*FINSIGHT_TRUSTED_KEYS"):
        ModelSigner(ours).check(bundle, tmp_path / "x.sig")
    (tmp_path / "key.pub").write_bytes(theirs.public)
    assert ModelSigner(None, [trusted_key(tmp_path / "key.pub")]).check(bundle, tmp_path / "x.sig") == theirs.key_id


def test_the_development_key_is_made_once_and_private(tmp_path: Path) -> None:
    assert development_key(tmp_path, make=False) is None
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(development_key, [tmp_path] * 8))
    assert len({key.pem for key in made if key}) == 1
    assert made[0]
    assert made[0].development
    assert (tmp_path / DEVELOPMENT_KEY).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / DEVELOPMENT_KEY).parent.iterdir()] == [DEVELOPMENT_KEY.name]


def test_a_key_comes_as_text_or_as_a_file_with_or_without_password(tmp_path: Path) -> None:
    text = private(b"secret")
    (tmp_path / "key.pem").write_text(text)
    for given in (text, str(tmp_path / "key.pem")):
        key = given_key(given, "secret")
        signer = ModelSigner(key)
        signer.sign(tmp_path / "key.pem", tmp_path / "x.sig")
        assert signer.check(tmp_path / "key.pem", tmp_path / "x.sig") == signer.key_id
        assert not key.development


def test_a_wrong_key_is_one_line_without_the_key(tmp_path: Path) -> None:
    rsa_key = rsa.generate_private_key(65537, 2048).private_bytes(PEM, PKCS8, serialization.NoEncryption()).decode()
    secret = private(b"secret")
    for given, password in (("nowhere.pem", None), ("-----BEGIN x", None), (secret, "wrong"), (secret, None), (rsa_key, None)):
        with pytest.raises(ParamsError, match="FINSIGHT_SIGNING_KEY: ") as caught:
            given_key(given, password)
        assert given.splitlines()[-1] not in str(caught.value) or given == "nowhere.pem"
    with pytest.raises(ParamsError, match="FINSIGHT_TRUSTED_KEYS: .*no public key in PEM"):
        (tmp_path / "x").write_text("x")
        trusted_key(tmp_path / "x")
    with pytest.raises(ParamsError, match="FINSIGHT_TRUSTED_KEYS: .*No such file"):
        trusted_key(tmp_path / "gone")


def test_a_signer_without_a_key_says_so(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="no key to sign with"):
        ModelSigner(None).sign(tmp_path, tmp_path / "x.sig")
    assert Key(b"").development is False


def test_a_key_beside_it_shows_that_nothing_was_changed(bundle: Path, tmp_path: Path) -> None:
    theirs, ours = ModelSigner(given_key(private(), None)), ModelSigner(given_key(private(), None))
    theirs.sign(bundle, tmp_path / "x.sig")
    assert ours.check(bundle, tmp_path / "x.sig", also=theirs.public) == theirs.key_id
    assert (ours.trusts(theirs.key_id), ours.trusts(ours.key_id)) == (False, True)
    (bundle / "a.onnx").write_bytes(b"x")
    with pytest.raises(ArtifactError, match="not what x.sig signs"):
        ours.check(bundle, tmp_path / "x.sig", also=theirs.public)
