"""Inputs and results of scorings in a folder of this machine."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from finsight.domain.artifacts import Bounds, Kept, place, surplus
from finsight.errors import DataError
from finsight.files import PARTIAL

BLOCK = 2**18  # bytes that are read at a time


class FolderArtifacts:
    """See :class:`finsight.service_ports.ArtifactStore`."""

    def __init__(self, root: Path, bounds: Bounds = Bounds()) -> None:  # noqa: B008  (frozen)
        self._root, self._bounds = root.resolve(), bounds

    def put(self, tenant: str, name: str, source: Path) -> None:
        """See :class:`finsight.service_ports.ArtifactStore`."""
        target = self._root / place(tenant, name)
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        # A name of its own for each writer: two may bring the same.
        descriptor, partial = tempfile.mkstemp(dir=target.parent, prefix=f"{name}.", suffix=PARTIAL)
        try:
            with os.fdopen(descriptor, "wb") as file, source.open("rb") as given:
                shutil.copyfileobj(given, file, BLOCK)
                file.flush()
                os.fsync(descriptor)
            Path(partial).replace(target)
        finally:
            Path(partial).unlink(missing_ok=True)
        for one in surplus(self._kept(), self._bounds, time.time(), place(tenant, name)):
            (self._root / one).unlink(missing_ok=True)

    def size(self, tenant: str, name: str) -> int | None:
        """See :class:`finsight.service_ports.ArtifactStore`."""
        try:
            return (self._root / place(tenant, name)).stat().st_size
        except FileNotFoundError:
            return None

    def read(self, tenant: str, name: str) -> Iterator[bytes]:
        """See :class:`finsight.service_ports.ArtifactStore`."""
        try:
            with (self._root / place(tenant, name)).open("rb") as file:
                while block := file.read(BLOCK):
                    yield block
        except FileNotFoundError:
            raise DataError(f"there is no object {name}; upload it first") from None

    def _kept(self) -> Iterator[Kept]:
        for path in self._root.glob("*/*"):  # what a killed writer has left goes by its age, too
            try:
                about = path.stat()
            except FileNotFoundError:  # another process removed it
                continue
            yield Kept(f"{path.parent.name}/{path.name}", about.st_size, about.st_mtime)
