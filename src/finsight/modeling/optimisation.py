"""How fast which weights learn: rates by layer and by step, freezing, and the moving average that is kept."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedModel

from finsight.errors import ParamsError

if TYPE_CHECKING:  # pydantic is not on every GPU image
    from finsight.params.train import TrainParams

LAYER = re.compile(r"(?P<stack>.*\.(?:layers?|h|blocks?))\.(?P<number>\d+)\.")
EMBEDDINGS, ABOVE = 0, 10**6


def level(name: str, prefix: str) -> int:
    """How high a parameter stands: 0 for the embeddings, 1 for the lowest layer, ``ABOVE`` for what stands above all layers."""
    if found := LAYER.match(name):
        return int(found["number"]) + 1
    # What an encoder has beside its layers (position biases and their norms) is read by each of them.
    return EMBEDDINGS if name.startswith(f"{prefix}.") and ("embeddings" in name or ".encoder." in name) else ABOVE


def parameter_groups(model: PreTrainedModel, recipe: TrainParams) -> list[dict[str, Any]]:
    """AdamW groups with layer-wise learning-rate decay; vectors (biases, norms) are not decayed in weight.

    Source: Howard & Ruder 2018, "Universal Language Model Fine-tuning" (discriminative rates); Clark et al. 2020 (ELECTRA) for
    the geometric form used here.
    """
    prefix = model.base_model_prefix
    levels = {name: level(name, prefix) for name, _ in model.named_parameters()}
    depth = max((at for at in levels.values() if at != ABOVE), default=0)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not name.startswith(f"{prefix}."):
            rate = recipe.lr * recipe.head_lr_multiplier
        else:  # pooler and final norm stand above the top layer
            rate = recipe.lr * recipe.layer_decay ** max(0, depth - levels[name])
        decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": p, "lr": rate, "initial_lr": rate, "weight_decay": decay} for (rate, decay), p in groups.items()]


def share_of_peak(step: float, steps: float, schedule: str, warmup_ratio: float) -> float:
    """The share of the peak rate at a step (from 0): linear up over the warm-up, then by the schedule down to 0 at ``steps``."""
    warmup = round(warmup_ratio * steps)
    if step < warmup:
        return (step + 1) / warmup
    left = max(0.0, (steps - step) / max(1, steps - warmup))
    return {"linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2, "constant": 1.0}[schedule]


def some_learn(model: PreTrainedModel, recipe: TrainParams) -> None:
    """Refuse a recipe that freezes as many layers as there are.

    :raises ParamsError: which says how many there are.
    """
    levels = 1 + max(at for name, _ in model.named_parameters() if (at := level(name, model.base_model_prefix)) != ABOVE)
    if recipe.frozen_layers >= levels:
        raise ParamsError(
            f"train.frozen_layers (of a teacher train.distillation.frozen_layers): got {recipe.frozen_layers}, "
            f"expected less than {levels}, the levels of this backbone"
        )


def freeze(model: PreTrainedModel, layers: int) -> None:
    """Let the lowest ``layers`` not learn, the embeddings counting as the first, and all others learn."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(level(name, model.base_model_prefix) >= layers)


def frozen_at(recipe: TrainParams, epoch: int) -> int:
    """How many layers are frozen in an epoch (from 0)."""
    return max(0, recipe.frozen_layers - (epoch // recipe.unfreeze_every if recipe.unfreeze_every else 0))


def weight_of_last(step: float, steps: float, recipe: TrainParams, size: float = 1.0) -> float:
    """What the weights after a step (from 1) weigh in the average that they join: 1 keeps the last weights alone.

    :param size: of the step, in steps of mean size: in an equal mean of a stream's weights a row counts like any other.

    ``ema`` is the average's decay; early on that is (1 + n) / (10 + n), so that a short run does not average over its random start
    (TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``). With ``swa`` it is the mean of all weights in the last ``swa`` of the
    steps, and the last weights before (Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization"): layer
    norms have no statistics to be computed anew.
    """
    if recipe.swa:
        return size / max(size, step - round((1 - recipe.swa) * steps))
    return 1 - min(recipe.ema, (1 + step) / (10 + step))


@torch.no_grad()
def average(averages: Sequence[torch.Tensor], weights: Sequence[torch.Tensor], share: float) -> None:
    """Let the weights join their averages, of which they become this share."""
    torch._foreach_lerp_(list(averages), list(weights), share)


@torch.no_grad()
def swap(these: Sequence[torch.Tensor], those: Sequence[torch.Tensor]) -> None:
    """Exchange the contents of two lists of tensors."""
    for a, b in zip(these, those, strict=True):
        kept = a.clone()
        a.copy_(b)
        b.copy_(kept)
