"""Files that are either whole or absent, and their digests."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finsight.errors import ArtifactError

PARTIAL = ".partial"


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its name when the block ends well, and is removed when it does not.

    The temporary name is fixed, so what a killed process left behind is overwritten by the next run.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder that replaces ``path`` when the block ends well, and is removed when it does not."""
    partial, old = path.with_name(path.name + PARTIAL), path.with_name(f"{path.name}.old{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if path.exists():
            path.replace(old)  # a folder can't be replaced in one step; between the two it is absent, never half
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def cached_folder(path: Path) -> Iterator[Path]:
    """Like :func:`atomic_folder`, for a cache that processes share: each fills a folder of its own, the first to end wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=f"{path.name}.", suffix=PARTIAL))
    try:
        yield partial
        if not path.exists():
            partial.chmod(0o755)  # mkdtemp makes it private
            with contextlib.suppress(FileExistsError):
                partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def full_disk_is_oserror() -> Iterator[None]:
    """Turn the bare exceptions by which the Rust libraries (safetensors, tokenizers) report a full disk into an OSError."""
    try:
        yield
    except Exception as error:
        if "No space left" in str(error) and not isinstance(error, OSError):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        raise


def json_text(content: Mapping[str, Any]) -> str:
    """``content`` as indented JSON, as all our files have it; NaN is refused, since JSON has none."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` as UTF-8 JSON, whole or not at all."""
    with atomic_file(path) as partial:
        partial.write_text(json_text(content), encoding="utf-8")


def read_json(path: Path, made_by: str) -> dict[str, Any]:
    """Read a JSON object that a stage wrote.

    :param made_by: the command that writes the file, for the message.
    :raises ArtifactError: when it is missing or not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file; `{made_by}` writes it") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{path}: not valid JSON ({error}); write it again with `{made_by}`") from None
    if not isinstance(content, dict):
        raise ArtifactError(f"{path}: got a JSON {type(content).__name__}, expected an object; write it again with `{made_by}`")
    return content


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    """One SHA-256 for a folder: of the sorted lines ``<sha256>  <relative path>`` of its files, as ``sha256sum`` prints them."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    lines = "".join(f"{sha256(p)}  {p.relative_to(folder).as_posix()}\n" for p in files)
    return hashlib.sha256(lines.encode()).hexdigest()
