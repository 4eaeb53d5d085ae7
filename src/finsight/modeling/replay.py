"""Passes that are recorded once for each width of a batch and played again: one launch in place of two thousand.

On a GPU a step of a few thousand tokens waits for its launches, not for arithmetic (bench/results/train.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

# Batches are as wide as a multiple of so many tokens, so that few widths are recorded; a twentieth more padding.
MULTIPLE = 4
# Families whose passes were recorded on a GPU, and learned the same: nothing in them waits for the device.
RECORDED = frozenset({"bert"})

Passes = Callable[..., None]


def recordable(model: PreTrainedModel, device: torch.device) -> bool:
    """Whether a model's passes can be recorded on a device."""
    return device.type == "cuda" and model.config.model_type in RECORDED


class Replay:
    """Runs passes, recorded where they come again.

    The first time, a width is run as it is: a recording pays from the third time on, and libraries set themselves up outside of it.

    :param passes: reads its inputs and adds to tensors that stay where they are; waits for nothing on the device.
    """

    def __init__(self, passes: Passes) -> None:
        self._passes = passes
        self._met: set[int] = set()
        self._recorded: dict[int, tuple[Callable[[], None], list[torch.Tensor]]] = {}
        self._pool: Any = None

    def again(self, width: int) -> bool:
        """Whether a batch of this width was there before: it has to have as many rows as it can, like all that follow."""
        return width in self._met

    def __call__(self, width: int, inputs: Sequence[torch.Tensor]) -> None:
        """Run the passes on a batch."""
        if not self.again(width):
            self._met.add(width)
            self._passes(*inputs)
            return
        if width not in self._recorded:
            own = [tensor.clone() for tensor in inputs]
            self._recorded[width] = (self.record(own), own)
        play, own = self._recorded[width]
        for mine, given in zip(own, inputs, strict=True):
            mine.copy_(given, non_blocking=True)
        play()

    def record(self, inputs: Sequence[torch.Tensor]) -> Callable[[], None]:
        """Record the passes on ``inputs``, without running them; what runs them on whatever these hold then."""
        graph = torch.cuda.CUDAGraph()
        self._pool = self._pool or torch.cuda.graph_pool_handle()  # one memory for all: only one plays at a time
        with torch.cuda.graph(graph, pool=self._pool):
            self._passes(*inputs)
        return graph.replay
