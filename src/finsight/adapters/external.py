"""The door for corpora from outside: fetched, put under DVC together with where they came from, staged in git."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from finsight.adapters import dvc, git
from finsight.adapters.corpus_sources import Origin, fetch
from finsight.adapters.download import Retry
from finsight.errors import DataError, ParamsError
from finsight.files import atomic_file, atomic_folder
from finsight.settings import Settings

EXTERNAL = Path("data/external")


def add_corpus(
    name: str,
    source: str,
    settings: Settings,
    digest: str | None = None,
    revision: str | None = None,
    retry: Retry | None = None,
) -> tuple[Path, Origin]:
    """Bring ``source`` to ``data/external/<name>`` and under DVC; return that folder and what is recorded of its origin.

    :param source: see :func:`finsight.adapters.corpus_sources.fetch`.
    :param digest: SHA-256 that the file must have, or, of several, their list (as :class:`Origin` says).
    :raises ParamsError: when the name or the digest can't be one, or the address may not be asked.
    :raises DataError: when the source is missing or not what its digest says, or the name is taken.
    :raises UnreachableError: when it can't be downloaded.
    """
    folder = _check(name, digest)
    with atomic_folder(folder) as partial:
        origin = fetch(source, partial, settings, revision, retry)
        if digest and origin.sha256 != digest.lower():
            raise DataError(f"{origin.source}: SHA-256 is {origin.sha256}, expected {digest}; nothing was added")
    record = Path(f"{folder}.dvc")
    done = False
    try:
        dvc.run("add", "--quiet", str(folder), cwd=Path.cwd())
        _record(record, origin)
        git.stage(Path.cwd(), str(record), str(EXTERNAL / ".gitignore"))
        done = True
    finally:
        if not done:  # also when interrupted: so that the command can simply be given again
            shutil.rmtree(folder, ignore_errors=True)
            record.unlink(missing_ok=True)
    return folder, origin


def _check(name: str, digest: str | None) -> Path:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise ParamsError(f"corpus name: got {name!r}, expected small letters, digits, - and _")
    if digest and not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
        raise ParamsError(f"--sha256: got {digest!r}, expected 64 hexadecimal digits")
    if not Path("dvc.yaml").is_file():
        raise DataError(f"{Path.cwd()}: holds no dvc.yaml; run this from the project's root")
    folder = EXTERNAL / name
    if Path(f"{folder}.dvc").exists():
        raise DataError(f"{folder}: is there already; remove it and {folder}.dvc first (`dvc remove {folder}.dvc`), or take another name")
    if folder.exists():
        raise DataError(f"{folder}: is there already, but not under DVC; move it elsewhere and add it from there, or remove it")
    return folder


def _record(path: Path, origin: Origin) -> None:
    """Keep the origin under ``meta``, which DVC leaves to its users and carries along."""
    yaml = YAML()
    content = yaml.load(path.read_text(encoding="utf-8"))
    content["meta"] = {"origin": origin.about()}
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        yaml.dump(content, file)


def origin_of(path: str) -> dict[str, Any]:
    """What the .dvc file above a corpus's path records of its origin; empty where there is none."""
    for folder in [Path(path), *Path(path).parents]:
        record = Path(f"{folder}.dvc")
        if record.is_file():
            content = YAML(typ="safe").load(record.read_text(encoding="utf-8")) or {}
            return dict((content.get("meta") or {}).get("origin") or {})
    return {}
