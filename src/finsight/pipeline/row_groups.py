"""A table's row groups, each worked on by itself: by threads of this process, or wherever else the same functions run."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from finsight.environment import cores
from finsight.errors import ArtifactError
from finsight.pipeline.raw import readable

if TYPE_CHECKING:
    from finsight.shard_ports import Item, Result


@dataclass(frozen=True, slots=True)
class RowGroup:
    """One row group of a Parquet file, as a process on another machine can find it.

    :param size: of the file in bytes: a machine may have a table of its own at the same path.
    :param root: folder that a relative path starts from.
    """

    path: Path
    number: int
    size: int
    root: Path = field(default_factory=Path.cwd)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Its rows.

        :raises ArtifactError: when the file is damaged, is not to be seen from here, or is another one.
        """
        here = self.root / self.path
        if not here.is_file() or here.stat().st_size != self.size:
            what = f"{'is another table' if here.is_file() else 'no such file'} on {socket.gethostname()}"
            raise ArtifactError(f"{here}: {what}; every machine of a cluster has to see the project under the same path")
        with readable(self.path):
            return pq.ParquetFile(here).read_row_group(self.number, columns)


def row_groups(path: Path) -> list[RowGroup]:
    """The row groups of a Parquet file, in their order.

    :raises ArtifactError: when it is missing or damaged.
    """
    with readable(path):
        return [RowGroup(path, number, path.stat().st_size) for number in range(pq.read_metadata(path).num_row_groups)]


class Run(Protocol):
    """Who works: :func:`in_threads`, or the ``run`` of a :class:`finsight.shard_ports.WorkerPool`."""

    def __call__(self, make: Callable[[], Callable[[Item], Result]], items: Sequence[Item]) -> Iterator[Result]:
        """What ``make()`` returns for each item, in their order."""
        ...


def in_threads(make: Callable[[], Callable[[Item], Result]], items: Sequence[Item]) -> Iterator[Result]:
    """What ``make()`` returns for each item, in their order; as many are worked on at once as there are cores.

    Threads do, since Arrow, NumPy and the tokenizers leave the interpreter free; only a few results are in memory at any time.
    """
    work, workers = make(), cores()
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
