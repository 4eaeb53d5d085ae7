"""A bundle is checked from end to end before anything of it is loaded."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Project
from finsight.bundle import bundle_digest, read_bundle
from finsight.errors import ArtifactError
from finsight.files import json_text


@pytest.fixture
def bundle(finished: Project, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.root / "models/bundle", tmp_path / "bundle"))


def edit(bundle: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest and seal it again, as one would who wants to be believed."""
    content = json.loads((bundle / "bundle.json").read_text())
    del content["sha256"]
    change(content)
    seal = hashlib.sha256(json_text(content).encode()).hexdigest()
    (bundle / "bundle.json").write_text(json_text({**content, "sha256": seal}))


def test_it_holds_graphs_tokenizer_and_manifest_and_says_what_it_is(bundle: Path) -> None:
    manifest = read_bundle(bundle)
    assert {p.name for p in bundle.iterdir()} == {"bundle.json", "model.fp32.onnx", "model.int8.onnx", "tokenizer.json"}
    assert manifest.labels == ["negative", "neutral", "positive"]
    assert manifest.licenses == {"corpus starter": "CC0-1.0", "backbone": "unknown"}
    assert set(manifest.metrics) == {"accuracy", "macro_f1", "n"}


@pytest.mark.parametrize("name", ["model.fp32.onnx", "model.int8.onnx", "tokenizer.json"])
def test_a_flipped_byte_is_named(bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"{name}: SHA-256 is"):
        read_bundle(bundle)


def test_each_flipped_byte_of_the_manifest_is_refused(bundle: Path) -> None:
    path = bundle / "bundle.json"
    content = path.read_bytes()
    for at in range(len(content)):
        for bit in (1, 0x20):
            path.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
            with pytest.raises(ArtifactError, match=r"bundle\.json: "):
                read_bundle(bundle)


@pytest.mark.parametrize("number", ["NaN", '"\\ud800"'])
def test_what_json_does_not_have_is_refused(bundle: Path, number: str) -> None:
    path = bundle / "bundle.json"
    path.write_text(path.read_text().replace('"temperature": ', f'"temperature": {number}, "t": '))
    with pytest.raises(ArtifactError, match="not as it was written"):
        read_bundle(bundle)


def test_a_changed_manifest_changes_the_digest(bundle: Path) -> None:
    before = bundle_digest(bundle)
    edit(bundle, lambda m: m["labels"].reverse())
    assert bundle_digest(bundle) != before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.update(schema_version=1), "schema_version is 1, this finsight reads 4"),
        (lambda m: m.pop("labels"), "labels: missing, expected two or more names"),
        (lambda m: m.update(more=1), "more: no field of a bundle of schema 4"),
        (lambda m: m.update(temperature=0), "temperature: got 0, expected a number above 0"),
        (lambda m: m.update(pad_id="0"), "pad_id: got '0', expected a token id"),
        (lambda m: m["limits"].update({"onnx-fp32": {"max_abs_diff": "x"}}), "limits: got .*, expected numbers by format"),
        (lambda m: m["limits"].pop("onnx-int8"), r"limits: got those of .*, expected those of \['onnx-fp32', 'onnx-int8'"),
        (lambda m: m["files"].update({"../evil": "0" * 64}), "'../evil' leaves the bundle's folder"),
        (lambda m: m["files"].update({"/etc/passwd": "0" * 64}), "'/etc/passwd' leaves the bundle's folder"),
        (lambda m: m["files"].update({"evil.pkl": "0" * 64}), "'evil.pkl' is neither a graph nor the tokenizer"),
        (lambda m: m["files"].pop("model.int8.onnx"), "'model.int8.onnx' has no digest"),
        (lambda m: m["graphs"].update({"onnx-fp32": "../../x"}), "has no digest"),
    ],
)
def test_a_manifest_that_lies_is_refused(bundle: Path, change: Callable[[dict[str, Any]], Any], says: str) -> None:
    edit(bundle, change)
    with pytest.raises(ArtifactError, match=says):
        read_bundle(bundle)


def test_a_file_that_is_not_listed_is_refused(bundle: Path) -> None:
    (bundle / "extra.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(ArtifactError, match=r"extra\.pkl: not listed"):
        read_bundle(bundle)


def test_a_missing_file_is_named(bundle: Path) -> None:
    (bundle / "model.int8.onnx").unlink()
    with pytest.raises(ArtifactError, match=r"model\.int8\.onnx: missing, but listed"):
        read_bundle(bundle)


def test_a_link_out_of_the_folder_is_refused(bundle: Path, tmp_path: Path) -> None:
    shutil.move(bundle / "tokenizer.json", tmp_path / "elsewhere.json")
    (bundle / "tokenizer.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ArtifactError, match=r"'tokenizer\.json' leaves the bundle's folder"):
        read_bundle(bundle)


def test_a_missing_bundle_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no bundle there; `make export` writes it"):
        read_bundle(tmp_path / "none")
