"""The files of a corpus: what ``corpora.x.path`` names, a file, a folder with all below it, or a glob; compressed ones by their content."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from finsight.adapters import compressed
from finsight.errors import DataError

COMPRESSED = (".gz", ".zst")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a corpus, or one member of a zip file.

    :param shown: its name within the corpus, for ids: ``2024/rows.csv.gz``, ``all.zip/rows.csv``.
    :param place: its path, for messages.
    :param suffix: of what is in it, in small letters: ``.csv`` for ``rows.csv.gz``.
    :param path: the file on disk.
    :param member: its name in the zip file, if it is in one.
    """

    shown: str
    place: str
    suffix: str
    path: Path
    member: str | None = None

    def open(self) -> AbstractContextManager[IO[bytes]]:
        """The decompressed bytes, as a stream; each call starts anew.

        :raises DataError: while it is read, when it is cut off, damaged, or a decompression bomb.
        """
        if self.member is not None:
            return compressed.open_member(self.path, self.member, self.place)
        match self.path.suffix.lower():
            case ".gz":
                return compressed.open_gzip(self.path, self.place)
            case ".zst":
                return compressed.open_zstd(self.path, self.place)
        return self.path.open("rb")

    def on_disk(self) -> bool:
        """Whether the file on disk is the content itself."""
        return self.member is None and self.path.suffix.lower() not in COMPRESSED


def list_files(path: str, corpus: str, suffixes: Collection[str]) -> list[SourceFile]:
    """The files that ``path`` names, by name. Hidden files, DVC's own and those without one of ``suffixes`` don't count, unless ``path``
    names a file itself.

    :raises DataError: when there are none, a link leads elsewhere, or a zip file is made to deceive.
    """
    root, found = _find(path, corpus)
    files: list[SourceFile] = []
    for item in sorted(found, key=lambda p: p.relative_to(root).as_posix()):
        shown = item.relative_to(root).as_posix()
        if not compressed.printable(shown):
            raise DataError(f"{root}: holds a file named {shown!r:.100}; give it a name without control characters, in UTF-8")
        suffix = _suffix(shown)
        if suffix == ".zip":
            files += _members(item, shown, suffixes)
        elif suffix in suffixes or item == Path(path):
            files.append(SourceFile(shown, str(item), suffix, item))
    if not files:
        kinds = ", ".join(f"*{s}" for s in sorted(suffixes))
        raise DataError(f"{path}: holds no {kinds} file; check corpora.{corpus}.path and .format in params.yaml")
    return files


def _find(path: str, corpus: str) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and the files."""
    given = Path(path)
    if given.is_dir():
        _refuse_strays(given, given)
        return given, list(_walk(given))
    if given.is_file():
        _refuse_strays(given, given)
        return given.parent, [given]
    parts = given.parts
    magic = next((i for i, part in enumerate(parts) if re.search(r"[*?[]", part)), None)
    if magic is None or not (root := Path(*parts[:magic])).is_dir():
        raise DataError(
            f"{given}: no such file or folder; check corpora.{corpus}.path in params.yaml, "
            f"bring the corpus in with `finsight corpus add {corpus} PATH-OR-URL`, or fetch it with `dvc pull`"
        )
    pattern = "/".join(parts[magic:])
    matched = {p for p in root.glob(pattern) if not _skipped(p.relative_to(root))}
    for link in matched:
        _refuse_strays(link, root)
    return root, [p for p in matched if p.is_file()]


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            if Path(folder, name).is_symlink():
                raise DataError(f"{Path(folder, name)!s}: is a link to a folder; put what it points to in its place")
        for name in names:
            file = Path(folder, name)
            if not _skipped(file.relative_to(root)):
                _refuse_strays(file, root)
                if file.is_file():
                    yield file


def _skipped(relative: Path) -> bool:
    return relative.suffix == ".dvc" or any(part.startswith(".") for part in relative.parts)


def _refuse_strays(file: Path, root: Path) -> None:
    """A link may lead to other data of the project or into DVC's cache (``cache.type: symlink``), not to the rest of the machine."""
    if file.resolve() == Path(os.path.abspath(file)):  # noqa: PTH100  # the name without following links, which pathlib can't give
        return
    home, data = Path.cwd().resolve(), Path("data").resolve()
    if not root.is_absolute() and root.parts[:1] == ("data",):
        allowed = [data, home / ".dvc/cache"]
    else:
        allowed = [root.parent.resolve(), home / ".dvc/cache"]
    if not any(file.resolve().is_relative_to(folder) for folder in allowed):
        raise DataError(f"{file}: is a link that leads out of the project's data; copy what it points to, if it belongs there")


def _members(path: Path, shown: str, suffixes: Collection[str]) -> list[SourceFile]:
    with compressed.open_zip(path) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
    compressed.check_members(path, infos)
    if packed := next((i.filename for i in infos if PurePosixPath(i.filename).suffix.lower() in (*COMPRESSED, ".zip")), None):
        raise DataError(f"{path}: holds {packed!r}, which is packed once more; unpack the archive, or pack plain files")
    wanted = [i.filename for i in infos if PurePosixPath(i.filename).suffix.lower() in suffixes]
    return [
        SourceFile(f"{shown}/{name}", f"{path}/{name}", PurePosixPath(name).suffix.lower(), path, name)
        for name in sorted(wanted)
        if not _skipped(Path(name))
    ]


def _suffix(name: str) -> str:
    pure = PurePosixPath(name)
    return PurePosixPath(pure.stem).suffix.lower() if pure.suffix.lower() in COMPRESSED else pure.suffix.lower()
