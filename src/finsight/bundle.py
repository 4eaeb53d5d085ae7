"""The bundle: the folder that is exported, registered and served. Content only, the same bytes for the same model."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finsight.errors import ArtifactError
from finsight.files import folder_digest, json_text, read_json, sha256, write_json

MANIFEST, SEAL = "bundle.json", "sha256"
SCHEMA_VERSION = 3


class Manifest(BaseModel):
    """``bundle.json``.

    :param graphs: format (``onnx-fp32``, …) → file name; the first is the reference.
    :param files: every other file of the bundle → its SHA-256.
    :param polarity: label → place between worst (-1) and best (1); empty where the labels have no order.
    :param temperature: divides a graph's logits, so that probabilities mean what they say.
    :param abstain_below: probability from which on the predicted label was right as often as ``evaluate.abstain_precision`` wants.
    :param protocol: what the metrics were measured on (see :mod:`finsight.domain.protocol`).
    :param pad_id: token id that fills short rows; masked, so its value does not move the logits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[3]
    labels: Annotated[list[str], Field(min_length=2)]
    max_length: Annotated[int, Field(ge=4)]
    pad_id: int
    opset: int
    graphs: Annotated[dict[str, str], Field(min_length=1)]
    tokenizer: str
    backbone: str
    backbone_sha256: str
    licenses: dict[str, str]
    polarity: dict[str, float]
    temperature: Annotated[float, Field(gt=0)]
    abstain_below: Annotated[float, Field(ge=0, le=1)] | None
    protocol: dict[str, Any]
    metrics: dict[str, float]
    files: dict[str, str]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``bundle.json`` beside the files it describes, sealed with the digest of its own content."""
    write_json(folder / MANIFEST, _sealed(manifest.model_dump()))


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
    try:
        manifest = Manifest.model_validate(unsealed)
    except ValidationError as error:
        first = error.errors()[0]
        raise ArtifactError(f"{folder / MANIFEST}: {'.'.join(map(str, first['loc']))}: {first['msg']}; export again") from None
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
