"""Where a corpus can come from: files here, an address, a bucket, a data set of the Hugging Face hub."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from finsight.adapters.addresses import shown
from finsight.adapters.buckets import fetch_objects
from finsight.adapters.download import Retry, download
from finsight.adapters.hub import fetch_commit
from finsight.errors import DataError, ParamsError
from finsight.files import folder_digest, sha256
from finsight.settings import Settings

HUB_ID = re.compile(r"(?:hf://)?(?:datasets/)?(?P<repository>[\w.-]+/[\w.-]+?)(?:@(?P<revision>\w+))?/?")
COMMIT = re.compile(r"[0-9a-f]{40}")
_DATA = ("csv", "tsv", "json", "jsonl", "ndjson", "parquet", "txt", "xlsx")
# Data and what says whose it is: no scripts, no pickles.
HUB_PATTERNS = (*(f"*.{s}" for s in _DATA), *(f"*.{s}.{z}" for s in _DATA for z in ("gz", "zst")), "*.zip", "README*", "LICENSE*")
# What the datasets library keeps about itself; a reader would take it for rows.
HUB_RECORDS = ("*dataset_info.json", "*dataset_infos.json", "*dataset_dict.json", "*state.json")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a corpus came from, for a later reader of its .dvc file.

    :param source: without user, password and query; of local files the name only.
    :param sha256: of the file; of several, of the lines that ``sha256sum`` prints for them, sorted by path.
    :param revision: the commit, for a data set of the hub.
    """

    source: str
    sha256: str
    revision: str | None = None

    def about(self) -> dict[str, str]:
        """What is known, by name."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def fetch(source: str, folder: Path, settings: Settings, revision: str | None = None, retry: Retry | None = None) -> Origin:
    """Bring what ``source`` names into ``folder``, an empty one.

    :param source: a path or pattern, ``http(s)://…``, ``s3://bucket/key``, ``hf://owner/name`` or ``owner/name``.
    :param revision: commit of a data set of the hub, 40 hexadecimal digits.
    :raises ParamsError: when the source contradicts itself, or is an address that may not be asked.
    :raises DataError: when it is missing, empty or holds what has no place in a corpus.
    :raises UnreachableError: when its server does not answer or refuses.
    """
    scheme = source.partition("://")[0].lower() if "://" in source else ""
    here = [] if scheme else local_files(source)
    hub = HUB_ID.fullmatch(source) if scheme == "hf" or not (scheme or here) else None
    if revision and not hub:
        raise ParamsError(f"--revision: {source} is no data set of the hub; it is for hf://owner/name")
    name = source
    if here:
        _copy(here, Path(source), folder)
        name = Path(source).resolve().name if len(here) == 1 else source.rpartition("/")[2]
    elif scheme in ("http", "https"):
        download(source, folder, settings.allow_private_urls, retry)
        name = shown(source)
    elif scheme == "s3":
        fetch_objects(source, folder, settings.s3_endpoint)
    elif hub:
        revision = _commit(source, hub["revision"] or revision)
        name = f"hf://datasets/{hub['repository']}"
        fetch_commit(hub["repository"], revision, folder, HUB_PATTERNS, "dataset", source, HUB_RECORDS)
    elif scheme:
        raise ParamsError(f"{shown(source)}: unknown kind of address; expected http://, https://, s3:// or hf://, or a path")
    else:
        raise DataError(f"{source}: no such file or folder")
    return Origin(name, digest_of(source, folder), revision)


def digest_of(source: str, folder: Path) -> str:
    """The SHA-256 of the one file that ``folder`` holds, or of the list of several.

    :raises DataError: when there is none.
    """
    files = [p for p in folder.rglob("*") if p.is_file()]
    if not files:
        raise DataError(f"{shown(source) if '://' in source else source}: holds no files")
    return sha256(files[0]) if len(files) == 1 else folder_digest(folder)


def local_files(source: str) -> list[Path]:
    """The file or folder of that name, or else the files that match it as a pattern."""
    path = Path(source).expanduser()
    if path.exists():
        return [path]
    if not re.search(r"[*?\[]", source):
        return []
    root = Path(path.anchor) if path.is_absolute() else Path()
    return sorted(p for p in root.glob(str(path.relative_to(path.anchor) if path.is_absolute() else path)) if p.is_file())


def _commit(source: str, revision: str | None) -> str:
    if revision and COMMIT.fullmatch(revision):
        return revision
    hint = "" if source.startswith("hf://") else "no such file or folder here; as a data set of the hub "
    got = f"got {revision!r}" if revision else "got none"
    raise ParamsError(f"{source}: {hint}it needs its commit, 40 hexadecimal digits ({got}): --revision 0123…, from its page's history")


def _copy(here: list[Path], source: Path, target: Path) -> None:
    """Copy a folder's content, or files; what is no plain file is refused, since DVC could not keep it."""
    if len(here) == 1 and here[0].is_dir():
        for path in _plain(here[0].rglob("*")):
            copy = target / path.relative_to(here[0])
            if path.is_dir():
                copy.mkdir(parents=True, exist_ok=True)
            else:
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)  # without its mode: the source may be read-only
        return
    # A file that was named itself may be a link: the user asked for what it points to.
    for path in _plain(here) if len(here) > 1 or here[0] != source.expanduser() else here:
        if not path.is_file():
            raise DataError(f"{path}: is no plain file; expected a file or a folder of files")
        if (target / path.name).exists():
            raise DataError(f"{source}: matches two files named {path.name}; put what belongs together into one folder and give that")
        shutil.copyfile(path, target / path.name)


def _plain(paths: Iterator[Path] | list[Path]) -> Iterator[Path]:
    for path in sorted(paths):
        if path.is_symlink():
            raise DataError(f"{path}: is a link; copy what it points to into the folder, if it belongs there")
        if not (path.is_dir() or path.is_file()):
            raise DataError(f"{path}: is no plain file; take it out of the folder")
        yield path
