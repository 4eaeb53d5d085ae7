"""Training rows that are too many to be held: read in pieces while they are learned from.

An epoch takes all pieces in an order of its own, and so many of them at a time as are shuffled together: a block. A block's batches follow
from the seed, the epoch and the block alone, so that an epoch can go on in the middle without what came before being read again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from finsight.modeling.batching import Data, Rows, batches
from finsight.modeling.epochs import Batch, Place, Planned, Step, Widths

if TYPE_CHECKING:  # pydantic is not on every GPU image
    from finsight.params.train import TrainParams

# Pieces of a block that are read at once: one that comes from a bucket waits for the network, not for this machine.
READERS = 8

T = TypeVar("T")
Pieces = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Stream:
    """What :class:`Data` is, but that the training rows are read when they are needed.

    :param sizes: rows of each piece, all at least 1.
    :param tokens: of all rows together.
    :param longest: tokens of the longest row.
    :param shuffled: rows that are shuffled together, at most; a piece that is larger is shuffled by itself.
    :param read: the rows of a piece; is asked by several threads at once.
    :param digest: SHA-256 of all the rows, in hexadecimal.
    """

    sizes: NDArray[np.int64]
    tokens: int
    longest: int
    shuffled: int
    read: Callable[[int], Data]
    validation: Rows
    pad_id: int
    digest: str

    def __len__(self) -> int:
        return int(self.sizes.sum())

    def blocks(self, seed: int, epoch: int) -> list[Pieces]:
        """The pieces of each block of an epoch (from 0)."""
        order = np.random.default_rng([seed, epoch]).permutation(len(self.sizes))
        found: list[list[int]] = []
        rows = self.shuffled
        for piece in order.tolist():
            rows += int(self.sizes[piece])
            if rows > self.shuffled:
                found.append([])
                rows = int(self.sizes[piece])
            found[-1].append(piece)
        return [np.array(pieces) for pieces in found]

    def block(self, pieces: Pieces) -> Data:
        """Read the rows of some pieces."""
        with ThreadPoolExecutor(READERS, "read") as pool:
            return joined(list(pool.map(self.read, pieces.tolist())))


def joined(parts: Sequence[Data]) -> Data:
    """The training rows of all parts, one after the other."""
    rows = Rows([row for part in parts for row in part.train.ids], np.concatenate([part.train.labels for part in parts]))
    targets, weights = (np.concatenate([getattr(part, name) for part in parts]) for name in ("targets", "weights"))
    return Data(rows, targets, weights, parts[0].validation, parts[0].pad_id)


class Streamed:
    """The steps of each epoch over a stream.

    How many there are is known when they are done. So the schedule goes by rows, which are counted beforehand: it ends with the last row.

    :param a_step: batches a step, in all processes.
    """

    def __init__(self, stream: Stream, recipe: TrainParams, a_step: int, widths: Widths) -> None:
        self._stream, self._recipe, self._a_step, self._widths = stream, recipe, a_step, widths
        self.rows = len(stream)
        fitting = max(1.0, recipe.batch_tokens / (stream.tokens / self.rows))  # rows of mean length in a batch
        sizes = [stream.sizes[pieces].sum() for pieces in stream.blocks(recipe.seed, 0)]
        steps = np.ceil(sum(np.ceil(size / fitting) for size in sizes) / a_step)
        self._rows_a_step = float(self.rows / steps)

    def rows_a_step(self, _: int) -> float:
        """Rows that a step of an epoch has in the mean, as far as lengths tell without padding."""
        return self._rows_a_step

    def schedule(self, _: int, epoch: int, rows: int) -> tuple[float, float]:
        """How far the training has come, and how far it goes, in steps of mean size.

        :param rows: done in the epoch.
        """
        return (epoch * self.rows + rows) / self._rows_a_step, self._recipe.epochs * self.rows / self._rows_a_step

    def in_all(self, step: int, epoch: int, rows: int) -> int:
        """Steps of the whole training, if those to come are like those that were done."""
        return round(step * self._recipe.epochs * self.rows / max(1, epoch * self.rows + rows))

    def steps(self, epoch: int, place: Place) -> Generator[Step, None, None]:
        """The steps of an epoch from a place on; the next block is read while one is learned from."""
        blocks = self._stream.blocks(self._recipe.seed, epoch)
        begun, done = place
        rows = sum(int(self._stream.sizes[pieces].sum()) for pieces in blocks[:begun])
        waiting: list[Batch] = []
        with closing(ahead(self._batches(epoch, number, blocks[number]) for number in range(begun, len(blocks)))) as read:
            for number, found in enumerate(read, start=begun):
                for at, batch in enumerate(found):
                    rows += len(batch.rows)
                    if at < done:
                        continue
                    waiting.append(batch)
                    if len(waiting) == self._a_step:
                        yield Step(waiting, rows, (number, at + 1))
                        waiting = []
                done = 0
        if waiting:
            yield Step(waiting, rows, (len(blocks), 0))

    def _batches(self, epoch: int, number: int, pieces: Pieces) -> list[Batch]:
        data, recipe = self._stream.block(pieces), self._recipe
        lengths = np.array([len(row) for row in data.train.ids], dtype=np.int64)
        rng = np.random.default_rng([recipe.seed, epoch, 1 + number])  # a 0 at the end would draw what the order of the pieces draws
        return [Batch(data, rows) for rows in batches(self._widths(lengths), recipe.batch_tokens, rng)]


def order(data: Data | Stream, recipe: TrainParams, a_step: int, widths: Widths) -> Planned | Streamed:
    """The steps of each epoch over the training rows; the parameters are those of the two."""
    return Streamed(data, recipe, a_step, widths) if isinstance(data, Stream) else Planned(data, recipe, a_step, widths)


def ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """The items, of which the next is made in a thread while one is used; an error in making it is raised when it is asked for."""
    with ThreadPoolExecutor(1, "ahead") as pool:
        upcoming = pool.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = pool.submit(next, items, None)
            yield item
