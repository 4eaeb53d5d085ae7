"""Pruning within training: the fitted model made smaller, and trained again until it has recovered."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finsight.modeling.backbone import load_config
from finsight.modeling.batching import Data
from finsight.modeling.inference import predict
from finsight.modeling.pruning import Cut, hold_zeros, matrices, plan, prune
from finsight.modeling.stream import Stream
from finsight.modeling.training import Fitted
from finsight.modeling.units import heads_of
from finsight.params.train import PruneParams, TrainParams
from finsight.pipeline.fitting import Fitter, Start, digest, validation_metrics

if TYPE_CHECKING:
    from finsight.ports import Backbone

RECOVERY = "recovery"
MEASURE = "validation_macro_f1"


@dataclass(frozen=True, slots=True)
class Pruned:
    """A model that has recovered.

    :param metrics: of the model on validation, and its loss in training where it was trained again.
    :param report: what was taken out, and what that cost.
    :param rows: training rows that were learned from.
    """

    model: Any
    metrics: dict[str, float]
    report: dict[str, Any]
    rows: int


def check(backbone: Backbone, params: TrainParams) -> None:
    """Refuse before any work starts what can't be done with this backbone.

    :raises ParamsError: which names the key.
    """
    if params.prune.on:
        _cut(load_config(backbone.folder), params.prune)


def _cut(config: Any, asked: PruneParams) -> Cut:
    return plan(config, asked.layers, asked.heads, asked.feed_forward, asked.magnitude)


def recovery(params: TrainParams) -> TrainParams:
    """The recipe of the recovery: the training's, but that all layers learn, and the head, which is not new any more, like the top one."""
    changes = {"epochs": params.prune.epochs, "head_lr_multiplier": 1.0, "frozen_layers": 0, "unfreeze_every": 0}
    return params.model_copy(update=changes)


def prune_and_recover(
    work: Fitter,
    backbone: Backbone,
    data: Data | Stream,
    params: TrainParams,
    model: Any,
    fitted: Fitted,
    restored: Callable[[list[dict[str, float]]], None],
) -> Pruned:
    """Prune the fitted model by ``params.prune`` and train it again on the same rows.

    :param params: the recipe that fitted into memory.
    :param restored: is told the recovery's epochs before a kill.
    """
    asked, device = params.prune, work.hardware.device
    cut, before = _cut(model.config, asked), parameters(model)
    judged = data.block(data.blocks(params.seed, 0)[0]) if isinstance(data, Stream) else data
    zeros = prune(model, cut, judged, params.batch_tokens, device, work.world)
    logits = predict(model, data.validation.ids, data.pad_id, 4 * params.batch_tokens, work.hardware)
    measured = validation_metrics(logits, data.validation.labels, len(work.labels))
    metrics = {f"validation_{name}": value for name, value in measured.items()}
    report: dict[str, Any] = {
        "layers": cut.layers,
        "heads_of_a_layer": cut.heads,
        "neurons_of_a_layer": cut.neurons,
        "parameters_before": before,
        "parameters_after": parameters(model),
        "zeros_in_the_layers": zeros,
        f"{MEASURE}_before": fitted.epochs[fitted.epoch - 1][MEASURE],
        f"{MEASURE}_pruned": metrics[MEASURE],
    }
    if not asked.epochs:
        return Pruned(model, metrics, report, 0)
    model.to("cpu")

    def make() -> Any:
        """On the device at once: what holds the zeros must lie beside the gradients."""
        again = copy.deepcopy(model).to(device)
        if cut.magnitude:
            hold_zeros(matrices(again))
        return again

    start = Start(make, digest(*(tensor.detach().numpy() for tensor in model.state_dict().values())))
    model, recovered, _ = work.fit(backbone, data, recovery(params), RECOVERY, restored, start=start)
    best = recovered.epochs[recovered.epoch - 1]
    report |= {f"{MEASURE}_recovered": best[MEASURE], "best_epoch": recovered.epoch, "epochs": len(recovered.epochs)}
    return Pruned(model, best, report, recovered.rows)


def parameters(model: Any) -> int:
    """Parameters of a model without those of heads that are zero, which the graphs don't have."""
    heads = sum(len(units.empty()) * units.weights for units in heads_of(model))
    return int(sum(parameter.numel() for parameter in model.parameters())) - heads
