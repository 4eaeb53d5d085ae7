"""A table on its way in: to a file, block by block, so that it is never in memory as a whole."""

from __future__ import annotations

import codecs
import hashlib
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import TracebackType

from finsight.errors import DataError, ParamsError
from finsight.pipeline.shards import names, read_shards
from finsight.service.slots import Slots
from finsight.service_ports import ArtifactStore

SECONDS = 600.0  # that an upload may take
_LEFT = 2 * 3600  # seconds after which no upload is under way any more, its way into the storage counted in
_PREFIX, _TABLE = "finsight-upload-", "table.csv"
_FOLDER = re.compile(_PREFIX + "[a-z0-9_]{8}")  # as tempfile names them
_LOOKED_AT = 100  # rows that are read before the table is taken


@dataclass(frozen=True, slots=True)
class Scoring:
    """What scorings work with.

    :param most: bytes of an upload.
    :param lines: of an upload.
    :param slots: for uploads, each of which takes as much of the disk as it is large.
    """

    store: ArtifactStore
    most: int = 512 * 2**20
    lines: int = 1_000_000
    slots: Slots = field(default_factory=lambda: Slots(8))


@contextmanager
def incoming() -> Iterator[Path]:
    """Where a table goes on its way in, in TMPDIR; it is gone with the block, or by :func:`sweep`."""
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder:
        yield Path(folder, _TABLE)


def sweep() -> None:
    """Remove what services of this account that were killed have left of uploads; what may still be under way stays."""
    for folder in Path(tempfile.gettempdir()).iterdir():
        with suppress(OSError):
            about = folder.lstat()
            ours = _FOLDER.fullmatch(folder.name) and stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid()
            if ours and time.time() - about.st_mtime > _LEFT:
                (folder / _TABLE).unlink(missing_ok=True)
                folder.rmdir()  # which leaves it where there is anything else


class TooLargeError(ParamsError):
    """More bytes came than may."""


class Upload:
    """Takes the bytes of a CSV in, and says as early as can be what is wrong with them.

    :param path: of the file; its name ends with ``.csv``.
    :param most: bytes.
    :param lines: at most; a row that goes over several lines counts as these.
    """

    def __init__(self, path: Path, most: int, lines: int) -> None:
        self._path, self._most, self._lines = path, most, lines
        self._file = path.open("wb")
        self._digest, self._decoder = hashlib.sha256(), codecs.getincrementaldecoder("utf-8")()
        self._bytes = self._ends = 0

    def write(self, block: bytes) -> None:
        """Take more.

        :raises TooLargeError: when it is too much.
        :raises ParamsError: when it is no UTF-8, or has too many lines.
        """
        self._bytes += len(block)
        self._ends += block.count(b"\n")
        if self._bytes > self._most:
            raise TooLargeError(f"the table is larger than {self._most} bytes; send it in parts")
        if self._ends > self._lines:
            raise ParamsError(f"the table has more than {self._lines} lines; send it in parts")
        self._decode(block)
        self._digest.update(block)
        self._file.write(block)

    def whole(self, column: str) -> str:
        """All has come; the digest of it.

        :raises ParamsError: when there is no such column, no row, or a first row that is none.
        """
        self._decode(b"", final=True)
        self._file.close()
        try:
            with closing(read_shards(self._path, 1)) as shards:  # one row in memory at a time: it may be as large as the table
                columns = [names(shard) for shard in islice(shards, _LOOKED_AT)][:1]
        except DataError as error:
            raise ParamsError(str(error).replace(str(self._path), "the table")) from None
        if not columns:
            raise ParamsError("the table has no rows; expected a line of column names, and others below it")
        if column not in columns[0]:
            raise ParamsError(f"text: there is no column {column!r}; the table has {', '.join(columns[0])[:300]}")
        return self._digest.hexdigest()

    def _decode(self, block: bytes, final: bool = False) -> None:
        try:
            self._decoder.decode(block, final)
        except UnicodeDecodeError:
            raise ParamsError("the table is not UTF-8; convert it, for example with iconv") from None

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
