"""Dropout whose random numbers cost little on a CPU."""

from __future__ import annotations

import torch
from torch import nn

_LEVELS = 1 << 16


class CheapDropout(nn.Dropout):
    """Dropout that draws 16 bits a value, four values a draw; its probability is rounded to a 65,536th.

    torch draws a number of its own for each value: on two cores that was an eighth of a training step (bench/results/train.md).
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The input with some values zero and the others scaled up, in training."""
        if not self.training or not self.p or input.device.type != "cpu":
            return super().forward(input)
        dropped = round(self.p * _LEVELS)
        draws = torch.randint(-(1 << 63), (1 << 63) - 1, ((input.numel() + 3) // 4,))
        kept = draws.view(torch.int16)[: input.numel()].view_as(input) >= dropped - _LEVELS // 2
        return input * kept * (_LEVELS / (_LEVELS - dropped))


def cheapen_dropout(model: nn.Module) -> None:
    """Replace the dropout modules of a model by ones that do the same for less."""
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.__class__ = CheapDropout
