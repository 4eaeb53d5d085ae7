"""The fine-tuning loop."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim.swa_utils import AveragedModel
from transformers import PreTrainedModel

from finsight.errors import ParamsError
from finsight.modeling.batching import Rows, batches, collate

if TYPE_CHECKING:  # pydantic is not on every GPU image
    from finsight.params.train import TrainParams


@dataclass(frozen=True, slots=True)
class Progress:
    """What a run reports: after each step its loss, after each epoch its metrics too.

    :param step: optimiser steps done, of ``steps``; ``epoch`` counts from 1.
    :param rows: training rows done in this epoch.
    :param metrics: empty in the middle of an epoch.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    rows: int
    loss: float
    metrics: dict[str, float]


Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]
Observer = Callable[[Progress], None]
Measure = Callable[[NDArray[np.float32], NDArray[np.int64]], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Fitted:
    """The best epoch (from 1) and its weights; the model itself is left holding them."""

    epoch: int
    epochs: list[dict[str, float]]


def fit(
    model: PreTrainedModel,
    train: Rows,
    targets: NDArray[np.float32],
    validation: Rows,
    recipe: TrainParams,
    pad_id: int,
    device: torch.device,
    dtype: torch.dtype,
    measure: Measure,
    observers: Sequence[Observer] = (),
) -> Fitted:
    """Fine-tune ``model`` in place and leave it at its best epoch by validation macro-F1.

    What is measured and kept is the moving average of the weights: on a few hundred steps the last weights swing by more than
    the epochs differ.
    Each row weighs the same whatever the size of its batch: the summed loss is divided by the mean number of rows a step.

    :param targets: probabilities (n, k) that the training rows' labels stand for.
    :param measure: maps logits (n, k) and labels (n,) to metrics, ``macro_f1`` among them.
    """
    rng = np.random.default_rng(recipe.seed)
    lengths = np.array([len(row) for row in train.ids], dtype=np.int64)
    plan = [batches(lengths, recipe.batch_tokens, rng) for _ in range(recipe.epochs)]
    steps = sum(len(epoch) for epoch in plan)
    model.to(device)
    optimizer = torch.optim.AdamW(parameter_groups(model, recipe), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: linear_schedule(step, steps, recipe.warmup_ratio))
    averaged = AveragedModel(model, multi_avg_fn=moving_average(recipe.ema))
    loss_of = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing, reduction="sum")
    best: dict[str, torch.Tensor] = {}
    best_epoch, history, step = 0, [], 0
    for epoch, order in enumerate(plan, start=1):
        model.train()
        rows_a_step = len(train) / len(order)
        total, seen = 0.0, 0
        for rows in order:
            tokens, mask = _to(device, *collate([train.ids[i] for i in rows], pad_id))
            (target,) = _to(device, targets[rows])  # (b, k)
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                logits = model(input_ids=tokens, attention_mask=mask).logits  # (b, k)
            loss = loss_of(logits.float(), target)
            (loss / rows_a_step).backward()
            nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
            optimizer.step()
            averaged.update_parameters(model)
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            step, seen, total = step + 1, seen + len(rows), total + loss.item()
            if not math.isfinite(total):
                raise ParamsError(f"train.lr: {recipe.lr:g} makes the loss {total} at step {step}; lower it")
            for observe in observers:
                observe(Progress(epoch, recipe.epochs, step, steps, seen, total / seen, {}))
        metrics = measure(predict(averaged.module, validation.ids, pad_id, 4 * recipe.batch_tokens, device, dtype), validation.labels)
        history.append({"epoch": epoch, "train_loss": total / seen} | {f"validation_{k}": v for k, v in metrics.items()})
        if not best or metrics["macro_f1"] > history[best_epoch - 1]["validation_macro_f1"]:
            best_epoch, best = epoch, {k: v.detach().to("cpu", copy=True) for k, v in averaged.module.state_dict().items()}
        for observe in observers:
            observe(Progress(epoch, recipe.epochs, step, steps, seen, total / seen, history[-1]))
    model.load_state_dict(best)
    return Fitted(best_epoch, history)


@torch.inference_mode()
def predict(
    model: PreTrainedModel, ids: Sequence[NDArray[np.int32]], pad_id: int, batch_tokens: int, device: torch.device, dtype: torch.dtype
) -> NDArray[np.float32]:
    """Logits (n, k) of token id rows, in their order."""
    model.eval().to(device)
    out = np.zeros((len(ids), model.config.num_labels), dtype=np.float32)
    for rows in batches(np.array([len(row) for row in ids], dtype=np.int64), batch_tokens):
        tokens, mask = _to(device, *collate([ids[i] for i in rows], pad_id))
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            out[rows] = model(input_ids=tokens, attention_mask=mask).logits.float().cpu().numpy()  # (b, k)
    return out


def _to(device: torch.device, *arrays: NDArray[Any]) -> list[torch.Tensor]:
    return [torch.from_numpy(a).to(device, non_blocking=True) for a in arrays]


def moving_average(decay: float) -> Callable[[Tensors, Tensors, torch.Tensor | int], None]:
    """An exponential moving average for torch's ``AveragedModel``; a decay of 0 keeps the last weights.

    Early on the decay is (1 + n) / (10 + n), so that a short run does not average over its random start.
    Source: TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``.
    """

    @torch.no_grad()
    def update(averages: Tensors, weights: Tensors, n: torch.Tensor | int) -> None:
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + int(n)) / (10 + int(n))))

    return update


def linear_schedule(step: int, steps: int, warmup_ratio: float) -> float:
    """The share of the peak rate at a step: linear up over the warm-up, then linear down to 0 at ``steps``."""
    warmup = round(warmup_ratio * steps)
    if step < warmup:
        return (step + 1) / warmup
    return max(0.0, (steps - step) / max(1, steps - warmup))


def parameter_groups(model: PreTrainedModel, recipe: TrainParams) -> list[dict[str, object]]:
    """AdamW groups with layer-wise learning-rate decay; vectors (biases, norms) are not decayed in weight.

    Source: Howard & Ruder 2018, "Universal Language Model Fine-tuning" (discriminative rates); Clark et al. 2020 (ELECTRA) for
    the geometric form used here.
    """
    named = list(model.named_parameters())
    depth_of = {name: int(found[1]) for name, _ in named if (found := re.search(r"\.(?:layers?|h|blocks?)\.(\d+)\.", name))}
    depth = max(depth_of.values(), default=-1) + 1
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        if not name.startswith(f"{model.base_model_prefix}."):
            rate = recipe.lr * recipe.head_lr_multiplier
        elif name in depth_of:
            rate = recipe.lr * recipe.layer_decay ** (depth - 1 - depth_of[name])
        elif "embeddings" in name:
            rate = recipe.lr * recipe.layer_decay**depth
        else:  # pooler and final norm stand above the top layer
            rate = recipe.lr
        decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": p, "lr": rate, "weight_decay": decay} for (rate, decay), p in groups.items()]
