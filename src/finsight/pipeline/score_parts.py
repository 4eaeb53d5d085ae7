"""Parts of a data set that is scored: which rows of which file each has, and what the manifest beside them says."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from finsight.errors import DataError
from finsight.files import PARTIAL, json_text
from finsight.pipeline.scored_shards import writable
from finsight.pipeline.shards import Footer, nulls, parquet_footer, texts
from finsight.shard_ports import FileFacts, FileStore

MANIFEST = "_finsight.json"
MOST_ROWS, MOST_BYTES = 65_536, 2**27  # of a part, the latter in memory: what a worker holds, and what a kill loses
PARTS = 64  # that a small data set has at least: enough for all workers to end at about the same time
_AT_ONCE = 16  # requests to the store
_PART = re.compile(r"part-\d{8,}-[0-9a-f]{12}\.parquet")
_HALF = re.compile(rf"\.({_PART.pattern}|{re.escape(MANIFEST)})\.[0-9a-f]+{re.escape(PARTIAL)}")  # what a kill left of a file


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one file, and the file that they are written to.

    :param name: tells the part from all others, see :func:`_named`: what has it is the part, finished, whoever wrote it.
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
    source: FileStore, files: Mapping[str, FileFacts], made_of: MadeOf, added: Sequence[str], unit: int, looked: Callable[[int], None]
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
        _check(where, found, made_of.column, added)
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
            parts.append(_named(len(parts), Part("", name, about.size, about.changed, first, rows), made_of))
    return parts


def _named(number: int, part: Part, made_of: MadeOf) -> Part:
    """The part with its place among all, and a digest of what it comes from: what is left of another run is never taken for it."""
    origin = json.dumps([asdict(made_of), asdict(part)])
    return replace(part, name=f"part-{number:08d}-{hashlib.sha256(origin.encode()).hexdigest()[:12]}.parquet")


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
    """Write which part lies in which file."""
    content = {**asdict(made_of), "rows": sum(part.rows for part in parts), "parts": [asdict(part) for part in parts]}
    target.put(MANIFEST, json_text(content).encode(errors="backslashreplace"))  # a file's name may be no UTF-8, and JSON can escape it


def begin(target: FileStore, made_of: MadeOf, parts: Sequence[Part]) -> list[Part]:
    """Get a place ready for parts, and write the manifest; those that an earlier run has finished, as far as nothing has changed.

    :raises DataError: when it holds something else, or the scores of another data set, column or bundle.
    """
    there = target.files()
    if MANIFEST in there:
        for name, old in asdict(_read_manifest(target)).items():
            if old != (new := asdict(made_of)[name]):
                raise DataError(f"{target.place}: holds scores of another {name} ({old}, not {new}); name another place")
    elif strangers := [name for name in there if not name.startswith(".")]:
        raise DataError(f"{target.place}: holds files that no `finsight score` wrote, such as {min(strangers)[:60]}; name an empty place")
    finished = [part for part in parts if part.name in there]
    for name in there.keys() - {part.name for part in finished}:
        if _PART.fullmatch(name) or _HALF.fullmatch(name):
            target.remove(name)
    write_manifest(target, made_of, parts)

    def counted(part: Part) -> Part:
        where = f"{target.place}/{part.name}"
        with target.open(part.name) as binary:
            without = nulls(where, binary, "predicted")
        return replace(part, bytes=there[part.name].size, without_text=without)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(counted, finished))


def _read_manifest(target: FileStore) -> MadeOf:
    try:
        content: dict[str, Any] = json.loads(target.read(MANIFEST))
        return MadeOf(**{name: str(content[name]) for name in MadeOf.__slots__})
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{target.place}/{MANIFEST}: not what `finsight score` writes; name another place") from None


def end(target: FileStore, made_of: MadeOf, parts: Sequence[Part]) -> None:
    """See that all parts, and no others, are where they belong, and complete the manifest.

    :raises DataError: when one is not: a worker that sees another folder under that path, or a second run, has put it there.
    """
    there = {name: about.size for name, about in target.files().items() if _PART.fullmatch(name)}
    if wrong := there.items() ^ {(part.name, part.bytes) for part in parts}:
        name = min(name for name, _ in wrong)
        what = "is of another run at the same time" if name not in {part.name for part in parts} else "is not there as a worker wrote it"
        raise DataError(f"{target.place}/{name}: {what}; let one run write here, to what all workers see under this path, and run it again")
    write_manifest(target, made_of, parts)
