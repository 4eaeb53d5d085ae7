"""The door for corpora from outside: copied or downloaded, put under DVC, staged in git."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from tqdm import tqdm

from finsight.adapters import dvc, git
from finsight.adapters.phrasebank_corpus import FILES
from finsight.errors import DataError, FinsightError, ParamsError, UnreachableError
from finsight.files import atomic_folder, sha256

EXTERNAL = Path("data/external")


def add_corpus(name: str, source: str, digest: str | None = None) -> Path:
    """Bring ``source`` (a file, a folder or an http(s) address) to ``data/external/<name>`` and under DVC; return that folder.

    :param digest: SHA-256 that a single file must have.
    :raises DataError: when it is missing or not what its digest says.
    :raises UnreachableError: when it can't be downloaded.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise ParamsError(f"corpus name: got {name!r}, expected small letters, digits, - and _")
    if not Path("dvc.yaml").is_file():
        raise DataError(f"{Path.cwd()}: holds no dvc.yaml; run this from the project's root")
    folder = EXTERNAL / name
    if Path(f"{folder}.dvc").exists():
        raise DataError(f"{folder}: is there already; remove it and {folder}.dvc first (`dvc remove {folder}.dvc`), or take another name")
    with atomic_folder(folder) as partial:
        if urlsplit(source).scheme in ("http", "https"):
            _download(source, partial / (Path(urlsplit(source).path).name or "download"))
        else:
            _copy(Path(source), partial)
        files = [p for p in partial.rglob("*") if p.is_file()]
        if not files:
            raise DataError(f"{source}: holds no files")
        if digest and (len(files) != 1 or sha256(files[0]) != digest):
            got = sha256(files[0]) if len(files) == 1 else f"{len(files)} files"
            raise DataError(f"{source}: SHA-256 is {got}, expected {digest}; nothing was added")
    try:
        dvc.run("add", "--quiet", str(folder), cwd=Path.cwd())
        git.stage(Path.cwd(), f"{folder}.dvc", str(EXTERNAL / ".gitignore"))
    except FinsightError:
        shutil.rmtree(folder)  # so that the command can simply be given again
        Path(f"{folder}.dvc").unlink(missing_ok=True)
        raise
    return folder


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        if link := next((p for p in source.rglob("*") if p.is_symlink()), None):
            raise DataError(f"{link}: is a link; copy what it points to into the folder, if it belongs there")
        shutil.copytree(source, target, dirs_exist_ok=True)
        for path in target.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)  # the source may be read-only
    elif source.is_file():
        shutil.copyfile(source, target / source.name)
    else:
        raise DataError(f"{source}: no such file or folder")


def _download(url: str, target: Path) -> None:
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=30) as response, target.open("wb") as file:
            response.raise_for_status()
            total = int(response.headers.get("content-length", 0)) or None
            with tqdm(total=total, unit="B", unit_scale=True, desc=target.name) as bar:
                for chunk in response.iter_bytes():
                    file.write(chunk)
                    bar.update(len(chunk))
    except httpx.HTTPError as error:
        raise UnreachableError(f"{url.partition('?')[0]}: {' '.join(str(error).split())[:200]}; check the address") from None


def propose(name: str, folder: Path) -> str:
    """The block for params.yaml that fits what the folder holds, and the command that uses it."""
    if any((folder / file).exists() for file in FILES.values()):
        block = ["format: phrasebank", "agreement: 50", "split: finbert", "license: CC-BY-NC-SA-3.0"]
    else:
        block = ["format: csv", *_csv_columns(folder), "license: UNKNOWN   # its SPDX identifier"]
    lines = [
        f"Under corpora in params.yaml, unless it is there:\n\n  {name}:",
        f"    path: {folder.as_posix()}",
        *(f"    {line}" for line in block),
    ]
    return "\n".join([*lines, "", f"Then: dvc exp run -S 'ingest.corpora=[{name}]'"])


def _csv_columns(folder: Path) -> list[str]:
    """The header of the first CSV file, as a comment beside the two keys that need it."""
    first = next(iter(sorted(folder.rglob("*.csv"))), None)
    if first is None:
        return ["text: text", "label: label"]
    with first.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        header = next(csv.reader(file), [])
    text = "text" if "text" in header else header[0] if header else "text"
    label = "label" if "label" in header else header[-1] if header else "label"
    return [f"text: {text}   # columns here: {', '.join(header)}", f"label: {label}"]
