"""The steps of a training: which rows are learned from together, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finsight.modeling.batching import Data, batches

if TYPE_CHECKING:  # pydantic is not on every GPU image
    from finsight.params.train import TrainParams


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that are learned from together.

    :param data: what they stand in: all there is, or the part of a stream.
    :param rows: their indices in it.
    """

    data: Data
    rows: NDArray[np.int64]


Place = tuple[int, int]
"""Where an epoch can go on: a block of it, and a batch of the block. Of what is planned as a whole a block is a step."""
BEGIN: Place = (0, 0)
Widths = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""Tokens that rows of these lengths take in a batch."""


@dataclass(frozen=True, slots=True)
class Step:
    """What the optimiser's next step learns from.

    :param batches: of all processes, which take them in turn.
    :param rows: of the epoch that are done after it.
    :param place: where the next step begins.
    """

    batches: list[Batch]
    rows: int
    place: Place


class Planned:
    """The steps of all epochs, made beforehand from the lengths of all rows.

    A step's batches go to the processes in turn; what is missing in the last step is made up by batches that weigh nothing.

    :param a_step: batches a step, in all processes.
    """

    def __init__(self, data: Data, recipe: TrainParams, a_step: int, widths: Widths) -> None:
        self._data, self.rows = data, len(data.train)
        tokens, seeds = (
            widths(np.array([len(row) for row in data.train.ids], dtype=np.int64)),
            [[recipe.seed, e] for e in range(recipe.epochs)],
        )
        self._plan = [
            [epoch[i : i + a_step] for i in range(0, len(epoch), a_step)]
            for epoch in (batches(tokens, recipe.batch_tokens, np.random.default_rng(seed)) for seed in seeds)
        ]
        self._steps = sum(len(epoch) for epoch in self._plan)

    def rows_a_step(self, epoch: int) -> float:
        """Rows that a step of an epoch has in the mean."""
        return self.rows / len(self._plan[epoch])

    def schedule(self, step: int, _: int, __: int) -> tuple[float, float]:
        """How far the training has come, and how far it goes, in steps."""
        return step, self._steps

    def in_all(self, *_: int) -> int:
        """Steps of the whole training."""
        return self._steps

    def steps(self, epoch: int, place: Place) -> Generator[Step, None, None]:
        """The steps of an epoch from a place on."""
        plan = self._plan[epoch]
        done = sum(len(rows) for step in plan[: place[0]] for rows in step)
        for number in range(place[0], len(plan)):
            done += sum(map(len, plan[number]))
            yield Step([Batch(self._data, rows) for rows in plan[number]], done, (number + 1, 0))
