"""The bundle: the folder that is exported, registered and served. Content only, the same bytes for the same model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from finsight.errors import ArtifactError
from finsight.files import folder_digest, json_text, read_json, sha256, write_json

MANIFEST, SEAL = "bundle.json", "sha256"
SCHEMA_VERSION = 4


@dataclass(frozen=True, slots=True)
class Manifest:
    """``bundle.json``.

    :param graphs: format (``onnx-fp32``, ``openvino-bf16``, …) → file name; the first is the reference, several may share a file.
    :param limits: format → limits on its differences from the checkpoint, which it kept at export; a host that computes in another
        way holds it to them again.
    :param files: every other file of the bundle → its SHA-256.
    :param polarity: label → place between worst (-1) and best (1); empty where the labels have no order.
    :param temperature: divides a graph's logits, so that probabilities mean what they say.
    :param abstain_below: probability from which on the predicted label was right as often as ``evaluate.abstain_precision`` wants.
    :param protocol: what the metrics were measured on (see :mod:`finsight.domain.protocol`).
    :param pad_id: token id that fills short rows; masked, so its value does not move the logits.
    """

    schema_version: int
    labels: list[str]
    max_length: int
    pad_id: int
    opset: int
    graphs: dict[str, str]
    limits: dict[str, dict[str, float]]
    tokenizer: str
    backbone: str
    backbone_sha256: str
    licenses: dict[str, str]
    polarity: dict[str, float]
    temperature: float
    abstain_below: float | None
    protocol: dict[str, Any]
    metrics: dict[str, float]
    files: dict[str, str]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _words(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(word, str) for word in value.values())


def _numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(_number(number) for number in value.values())


# What a field may be. Written out rather than with pydantic: a serving image has tokenizers, numpy and one runtime, no more.
_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "labels": (lambda v: isinstance(v, list) and len(v) > 1 and all(isinstance(name, str) for name in v), "two or more names"),
    "max_length": (lambda v: type(v) is int and v >= 4, "a number of tokens from 4 on"),
    "pad_id": (lambda v: type(v) is int and v >= 0, "a token id"),
    "opset": (lambda v: type(v) is int, "a number"),
    "graphs": (lambda v: _words(v) and len(v) > 0, "file names by format"),
    "limits": (lambda v: isinstance(v, dict) and all(_numbers(limits) for limits in v.values()), "numbers by format"),
    "tokenizer": (lambda v: isinstance(v, str), "a file name"),
    "backbone": (lambda v: isinstance(v, str), "a name"),
    "backbone_sha256": (lambda v: isinstance(v, str), "a digest"),
    "licenses": (_words, "names"),
    "polarity": (_numbers, "numbers by label"),
    "temperature": (lambda v: _number(v) and v > 0, "a number above 0"),
    "abstain_below": (lambda v: v is None or (_number(v) and 0 <= v <= 1), "a probability or null"),
    "protocol": (lambda v: isinstance(v, dict), "an object"),
    "metrics": (_numbers, "numbers"),
    "files": (_words, "digests by file name"),
}


def _problem(content: dict[str, Any]) -> str | None:
    """What is wrong with the fields of a manifest, in words."""
    if unknown := sorted(content.keys() - _FIELDS.keys() - {"schema_version"}):
        return f"{unknown[0]}: no field of a bundle of schema {SCHEMA_VERSION}"
    for name, (fits, expected) in _FIELDS.items():
        if name not in content:
            return f"{name}: missing, expected {expected}"
        if not fits(content[name]):
            return f"{name}: got {content[name]!r}, expected {expected}"
    if content["limits"].keys() != content["graphs"].keys():
        return f"limits: got those of {sorted(content['limits'])}, expected those of {sorted(content['graphs'])}"
    return None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``bundle.json`` beside the files it describes, sealed with the digest of its own content."""
    write_json(folder / MANIFEST, _sealed(asdict(manifest)))


def _sealed(content: dict[str, Any]) -> dict[str, Any]:
    """The content with the SHA-256 of its text as its last entry."""
    return {**content, SEAL: hashlib.sha256(json_text(content).encode()).hexdigest()}


def file_digests(folder: Path) -> dict[str, str]:
    """Every file of a bundle but its manifest → its SHA-256, sorted by name."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    return {p.relative_to(folder).as_posix(): sha256(p) for p in files}


def bundle_digest(folder: Path) -> str:
    """The one digest that names a bundle: of all its files, the manifest included."""
    return folder_digest(folder)


def read_bundle(folder: Path) -> Manifest:
    """Check a bundle from end to end and return its manifest; nothing else of it is loaded before that.

    :raises ArtifactError: on an unknown schema version, a manifest that was changed, a file that is missing, unlisted, outside the
        folder, or whose digest differs.
    """
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no bundle there; `make export` writes it, `dvc pull` fetches it")
    content = read_json(folder / MANIFEST, "make export")
    if content.get("schema_version") != SCHEMA_VERSION:
        raise ArtifactError(
            f"{folder / MANIFEST}: schema_version is {content.get('schema_version')!r}, this finsight reads {SCHEMA_VERSION}; "
            "export again or use the finsight that wrote it"
        )
    unsealed = {name: value for name, value in content.items() if name != SEAL}
    try:
        as_written = (folder / MANIFEST).read_bytes() == json_text(_sealed(unsealed)).encode()
    except ValueError:  # NaN, or half of a character
        as_written = False
    if not as_written:
        raise ArtifactError(f"{folder / MANIFEST}: not as it was written; don't use this bundle: `dvc pull` or `make export` restores it")
    if problem := _problem(unsealed):
        raise ArtifactError(f"{folder / MANIFEST}: {problem}; export again")
    manifest = Manifest(**unsealed)
    for name in manifest.files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or (folder / name).is_symlink():
            raise ArtifactError(f"{folder / MANIFEST}: {name!r} leaves the bundle's folder; don't use this bundle")
    named = {*manifest.graphs.values(), manifest.tokenizer}
    for name in sorted(named ^ manifest.files.keys()):
        problem = "has no digest" if name in named else "is neither a graph nor the tokenizer"
        raise ArtifactError(f"{folder / MANIFEST}: {name!r} {problem}; don't use this bundle")
    found = file_digests(folder)
    if missing := sorted(manifest.files.keys() - found.keys()):
        raise ArtifactError(f"{folder / missing[0]}: missing, but listed in {MANIFEST}; `dvc pull` or `make export` restores it")
    if extra := sorted(found.keys() - manifest.files.keys()):
        raise ArtifactError(f"{folder / extra[0]}: not listed in {MANIFEST}; remove it or export again")
    for name, digest in manifest.files.items():
        if found[name] != digest:
            raise ArtifactError(f"{folder / name}: SHA-256 is {found[name][:12]}…, {MANIFEST} says {digest[:12]}…; don't use this bundle")
    return manifest
