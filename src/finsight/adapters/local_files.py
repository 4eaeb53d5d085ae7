"""Files of a folder."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from finsight.errors import DataError
from finsight.files import PARTIAL
from finsight.shard_ports import FileFacts


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """See :class:`finsight.shard_ports.FileStore`.

    :param root: absolute, since workers may stand elsewhere.
    """

    root: Path

    @property
    def place(self) -> str:
        """See :class:`finsight.shard_ports.FileStore`."""
        return str(self.root)

    def files(self) -> dict[str, FileFacts]:
        """See :class:`finsight.shard_ports.FileStore`."""
        if not self.root.is_dir():
            return {}

        def refused(error: OSError) -> None:
            raise error  # os.walk would leave out what it may not read

        found = {}
        for folder, _, names in os.walk(self.root, onerror=refused):
            for name in names:
                shown = Path(folder, name).relative_to(self.root).as_posix()
                if about := self.facts(shown):
                    found[shown] = about
        return found

    def facts(self, name: str) -> FileFacts | None:
        """See :class:`finsight.shard_ports.FileStore`."""
        path = self.root / name
        if not path.is_file():
            return None
        about = path.stat()
        return FileFacts(about.st_size, about.st_mtime_ns)

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """See :class:`finsight.shard_ports.FileStore`."""
        path = self.root / name
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        with path.open("rb") as file:
            yield file

    def read(self, name: str, start: int = 0, size: int | None = None) -> bytes:
        """See :class:`finsight.shard_ports.FileStore`."""
        with self.open(name) as file:
            file.seek(start)
            return file.read(-1 if size is None else size)

    def put(self, name: str, content: bytes) -> None:
        """See :class:`finsight.shard_ports.FileStore`."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own: a worker that was given up for lost may still write the same file.
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
        try:
            with partial.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """See :class:`finsight.shard_ports.FileStore`."""
        (self.root / name).unlink(missing_ok=True)
