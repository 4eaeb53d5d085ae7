"""A fitted model made smaller: layers dropped, heads and neurons taken out, single weights set to zero."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from finsight.errors import ParamsError
from finsight.modeling.batching import Data, batches, collate
from finsight.modeling.distributed import World, add_up
from finsight.modeling.inference import to_device
from finsight.modeling.losses import soft_cross_entropy
from finsight.modeling.units import FAMILIES, Units, family_of, heads_of, layers_of, neurons_of

# Training rows that units are judged by, at most. Michel et al. judge heads by a few thousand sentences.
JUDGED_ROWS = 4096
# Widths are kept at multiples of this, as the kernels of GPUs and CPUs want them.
WIDTH_STEP = 8


@dataclass(frozen=True, slots=True)
class Cut:
    """How much is taken out of each part: layers in all, heads and neurons of each layer, and a share of what weights are left."""

    layers: int
    heads: int
    neurons: int
    magnitude: float


def plan(config: PreTrainedConfig, layers: int, heads: float, feed_forward: float, magnitude: float) -> Cut:
    """What shares of a model are in whole parts.

    :param layers: number that is dropped.
    :param heads: share of each layer's heads.
    :param feed_forward: share of each layer's neurons; what is left is rounded to a multiple of 8.
    :param magnitude: share of the weights that are left in the layers' matrices.
    :raises ParamsError: when the family can't be pruned so, or a share is nothing, or everything.
    """
    wanted = {"layers": layers, "heads": heads, "feed_forward": feed_forward, "magnitude": magnitude}
    for key, value in wanted.items():
        if value:
            family_of(config, f"train.prune.{key}")
    if not any(wanted.values()):
        return Cut(0, 0, 0, 0.0)
    depth, count = int(config.num_hidden_layers), int(config.num_attention_heads)
    width = int(getattr(config, FAMILIES[config.model_type].width))
    if layers >= depth:
        raise ParamsError(f"train.prune.layers: got {layers}, expected less than {depth}, the layers of this backbone")
    lost = round(heads * count)
    if heads and not 0 < lost < count:
        raise ParamsError(f"train.prune.heads: {heads:g} of the {count} heads of a layer are {lost}, expected 1 to {count - 1}")
    left = round((1 - feed_forward) * width / WIDTH_STEP) * WIDTH_STEP if feed_forward else width
    if feed_forward and not 0 < left < width:
        raise ParamsError(
            f"train.prune.feed_forward: without {feed_forward:g} of its {width} neurons a layer has {left}, by steps of {WIDTH_STEP}; "
            f"expected {WIDTH_STEP} to {width - 1}"
        )
    return Cut(layers, lost, width - left, magnitude)


def prune(model: PreTrainedModel, cut: Cut, data: Data, batch_tokens: int, device: torch.device, world: World) -> int:
    """Prune a fitted model in place.

    Layers go from the top: of the ways to choose them that Sajjad et al. compare, it is the one that costs least on most tasks. Heads and
    neurons go by :func:`importance`, in each layer the same number, judged in the whole model. Layers and neurons are gone after this, and
    the configuration says so; heads and single weights are zero, since a configuration has no word for them: ``remove_zero_heads``
    takes heads out of a model that is to be run.

    :return: single weights that were set to zero.
    :source: Sajjad et al. 2023, "On the Effect of Dropping Layers of Pre-trained Transformer Models".
    """
    left = len(layers_of(model)) - cut.layers
    heads = heads_of(model)[:left] if cut.heads else []
    neurons = neurons_of(model)[:left] if cut.neurons else []
    worth = importance(model, [*heads, *neurons], data, batch_tokens, device, world) if heads or neurons else []
    for units, found in zip(heads, worth, strict=False):
        units.clear(_least(found, cut.heads).tolist())
    for units, found in zip(neurons, worth[len(heads) :], strict=True):
        lost = set(_least(found, cut.neurons).tolist())
        units.keep([unit for unit in range(units.count) if unit not in lost])
    if neurons:
        setattr(model.config, FAMILIES[model.config.model_type].width, neurons[0].count - cut.neurons)
    if cut.layers:
        drop_layers(model, cut.layers)
    return zero_smallest(matrices(model), cut.magnitude)


def importance(
    model: PreTrainedModel, judged: list[Units], data: Data, batch_tokens: int, device: torch.device, world: World
) -> list[torch.Tensor]:
    """How much the loss would change without each unit, to the first order: the sum over training rows of ∣activation · gradient∣.

    The product, summed over a row's tokens, is also that of the unit's weights in the matrix that reads it and their gradients. Without
    dropout and in fp32; of many rows a few thousand are taken, evenly. Processes share the rows and get the same sums.

    :return: for each of ``judged`` the importance of its units (count,), float64.
    :source: Michel, Levy & Neubig 2019, "Are Sixteen Heads Really Better than One?" for heads; Molchanov et al. 2019, "Importance
        Estimation for Neural Network Pruning", for neurons.
    """
    model.to(device).eval().requires_grad_(True)
    found = [torch.zeros(units.count, dtype=torch.float64, device=device) for units in judged]
    chosen = np.unique(np.linspace(0, len(data.train) - 1, min(len(data.train), JUDGED_ROWS)).astype(np.int64))
    lengths = np.array([len(data.train.ids[i]) for i in chosen], dtype=np.int64)
    for places in batches(lengths, batch_tokens)[world.rank :: world.size]:
        rows = chosen[places]
        tokens, mask = to_device(device, *collate([data.train.ids[i] for i in rows], data.pad_id))
        target, weights = to_device(device, data.targets[rows], data.weights[rows])
        with _inputs([units.reader for units in judged]) as inputs:
            loss = soft_cross_entropy(model(input_ids=tokens, attention_mask=mask).logits, target, weights)
        activations = [inputs[units.reader] for units in judged]  # of each (b, t, count * size)
        for total, activation, gradient in zip(found, activations, torch.autograd.grad(loss, activations), strict=True):
            change = (activation.detach() * gradient).sum(dim=1).view(len(rows), len(total), -1)  # (b, count, size)
            total += change.sum(dim=2).abs().sum(dim=0)
    if found:
        add_up(world, found)
    return [total.cpu() for total in found]


@contextmanager
def _inputs(readers: Sequence[nn.Linear]) -> Iterator[dict[nn.Module, torch.Tensor]]:
    """While the block runs, note what these matrices are given."""
    given: dict[nn.Module, torch.Tensor] = {}
    hooks = [reader.register_forward_pre_hook(lambda module, inputs: given.update({module: inputs[0]})) for reader in readers]
    try:
        yield given
    finally:
        for hook in hooks:
            hook.remove()


def drop_layers(model: PreTrainedModel, number: int) -> None:
    """Take the highest layers out, and say so in the configuration."""
    layers = layers_of(model)
    del layers[len(layers) - number :]
    model.config.num_hidden_layers = len(layers)
    if getattr(model.config, "layer_types", None):  # ModernBERT: which layers look at all tokens
        model.config.layer_types = model.config.layer_types[: len(layers)]


def matrices(model: PreTrainedModel) -> list[nn.Parameter]:
    """The matrices of the layers; embeddings are looked up and not multiplied, so that zeros in them would save nothing."""
    return [parameter for parameter in layers_of(model).parameters() if parameter.ndim == 2]


@torch.no_grad()
def zero_smallest(weights: list[nn.Parameter], share: float) -> int:
    """Set the smallest weights of each matrix to zero, so many of those that are not zero; return how many in all.

    :source: Gordon, Duh & Andrews 2020, "Compressing BERT: Studying the Effects of Weight Pruning on Transfer Learning", for a share of
        each matrix; Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks", for the rest.
    """
    zeros = 0
    for weight in weights if share else ():
        flat = weight.detach().flatten().to("cpu", copy=True)
        there = flat.nonzero().flatten()
        least = _least(flat[there].abs(), round(share * len(there)))
        flat[there[least]] = 0
        weight.copy_(flat.view_as(weight))
        zeros += len(least)
    return zeros


def hold_zeros(weights: list[nn.Parameter]) -> None:
    """Let no gradient reach the weights that are zero, so that AdamW leaves them so and the clipped norm does not count them."""
    for weight in weights:
        weight.register_hook(partial(torch.mul, weight.detach() != 0))  # type: ignore[no-untyped-call]


def _least(worth: torch.Tensor, number: int) -> torch.Tensor:
    """Places of the smallest, the first of equal ones."""
    return torch.argsort(worth, stable=True)[:number]
