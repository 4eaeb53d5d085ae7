"""Parts of a data set that is scored: which rows of which file each has, and what the manifest beside them says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from finsight.errors import DataError
from finsight.files import json_text
from finsight.pipeline.scored_shards import writable
from finsight.pipeline.shards import Footer, nulls, parquet_footer, texts
from finsight.ports import FileFacts, FileStore

MANIFEST = "_finsight.json"
MOST_ROWS, MOST_BYTES = 65_536, 2**27  # of a part, the latter in memory: what a worker holds, and what a kill loses
PARTS = 64  # that a small data set has at least: enough for all workers to end at about the same time
_AT_ONCE = 16  # requests to the store


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one file, and the file that they are written to.

    :param source: the file, of ``size`` bytes and last ``changed`` so many nanoseconds after 1970.
    :param first: number of the first row in it.
    :param bytes: that were written, and rows ``without_text`` among them; None until it is finished.
    """

    name: str
    source: str
    size: int
    changed: int
    first: int
    rows: int
    bytes: int | None = None
    without_text: int | None = None

    def same(self, other: Part | None) -> bool:
        """Whether it is of the same rows, finished or not."""
        return other is not None and replace(self, bytes=None, without_text=None) == replace(other, bytes=None, without_text=None)


@dataclass(frozen=True, slots=True)
class MadeOf:
    """What the scores of a data set come from: those of another are not gone on from."""

    source: str
    column: str
    bundle: str
    format: str


def parquet_files(source: FileStore) -> dict[str, FileFacts]:
    """The Parquet files of a store, in the order in which they are scored; what begins with a dot or an underscore is none.

    :raises DataError: when there is none.
    """
    found = source.files()
    names = (name for name in found if PurePosixPath(name).suffix == ".parquet")
    wanted = sorted(name for name in names if not any(word.startswith((".", "_")) for word in PurePosixPath(name).parts))
    if not wanted:
        raise DataError(f"{source.place}: holds no .parquet file; name a folder or a prefix that does")
    return {name: found[name] for name in wanted}


def plan(
    source: FileStore, files: Mapping[str, FileFacts], column: str, added: Sequence[str], unit: int, looked: Callable[[int], None]
) -> list[Part]:
    """Divide files into parts, in the order of ``files``; no part has rows of two files.

    How many rows a part has follows from the files alone, so that a run can be gone on with by any number of workers.

    :param added: columns that will be added, which no file may have.
    :param unit: rows of which a part has a multiple, but for a file's last.
    :param looked: is told how many rows a further file has.
    :raises DataError: when a file is damaged, lacks the column, or can't be scored.
    """

    def footer(name: str) -> Footer:
        where = f"{source.place}/{name}"
        with source.open(name) as binary:
            found = parquet_footer(where, binary)
        _check(where, found, column, added)
        return found

    footers: list[Footer] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for found in pool.map(footer, files):
            footers.append(found)
            looked(found.rows)
    total = sum(found.rows for found in footers)
    parts: list[Part] = []
    for (name, about), found in zip(files.items(), footers, strict=True):
        for first, rows in _ranges(found, total, unit):
            parts.append(Part(f"part-{len(parts):08d}.parquet", name, about.size, about.changed, first, rows))
    return parts


def _ranges(footer: Footer, total: int, unit: int) -> Iterator[tuple[int, int]]:
    fits = min(MOST_ROWS, total // PARTS, MOST_BYTES * footer.rows // max(1, footer.uncompressed))
    size = max(1, fits // unit) * unit
    for first in range(0, footer.rows, size):
        yield first, min(size, footer.rows - first)


def _check(where: str, footer: Footer, column: str, added: Sequence[str]) -> None:
    known = footer.schema.names
    if column not in known:
        raise DataError(f"{where}: no column {column!r}; it has {', '.join(known) or 'none'}: name one with --text")
    if taken := [name for name in added if name in known]:
        raise DataError(f"{where}: column {taken[0]!r} is one that is added; rename it")
    texts(where, footer.schema.empty_table(), column)
    writable(where, footer.schema)


def write_manifest(target: FileStore, made_of: MadeOf, parts: Sequence[Part]) -> None:
    """Write which part lies in which file. A file that is there under the name of a part is that part, finished: each comes whole."""
    content = {**asdict(made_of), "rows": sum(part.rows for part in parts), "parts": [asdict(part) for part in parts]}
    target.put(MANIFEST, json_text(content).encode())


def begin(target: FileStore, made_of: MadeOf, parts: Sequence[Part]) -> list[Part]:
    """Get a place ready for parts, and write the manifest; those that an earlier run has finished, as far as nothing has changed.

    :raises DataError: when it holds something else, or the scores of another data set, column or bundle.
    """
    there = target.files()
    before: dict[str, Part] = {}
    if MANIFEST in there:
        earlier, before = _read_manifest(target)
        for name, old in asdict(earlier).items():
            if old != (new := asdict(made_of)[name]):
                raise DataError(f"{target.place}: holds scores of another {name} ({old}, not {new}); name another place")
    elif strangers := [name for name in there if not name.startswith(".")]:
        raise DataError(f"{target.place}: holds files that no `finsight score` wrote, such as {min(strangers)[:60]}; name an empty place")
    finished = [part for part in parts if part.same(before.get(part.name)) and part.name in there]
    kept = {MANIFEST, *(part.name for part in finished)}
    for name in there:
        if name not in kept and (name in before or name.startswith((".part-", f".{MANIFEST}."))):  # with a dot: what a kill left of a file
            target.remove(name)
    write_manifest(target, made_of, parts)

    def counted(part: Part) -> Part:
        where = f"{target.place}/{part.name}"
        with target.open(part.name) as binary:
            without = nulls(where, binary, "predicted")
        return replace(part, bytes=there[part.name].size, without_text=without)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(counted, finished))


def _read_manifest(target: FileStore) -> tuple[MadeOf, dict[str, Part]]:
    try:
        with target.open(MANIFEST) as file:
            content: dict[str, Any] = json.loads(file.read())
        made_of = MadeOf(**{name: str(content[name]) for name in MadeOf.__slots__})
        parts = [Part(**part) for part in content["parts"]]
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{target.place}/{MANIFEST}: not what `finsight score` writes; name another place") from None
    return made_of, {part.name: part for part in parts}
