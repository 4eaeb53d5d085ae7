"""The parts of an encoder that it can lose: attention heads and neurons of the feed-forward networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from finsight.errors import ParamsError


@dataclass(frozen=True, slots=True)
class Family:
    """Where the parts of a layer lie, as submodules of it.

    :param layers: the layers, in the base model.
    :param projections: what makes queries, keys and values, in one matrix or several.
    :param mixed: reads what the heads make.
    :param widened: makes the neurons of the feed-forward network; a gate stands below them in the same matrix.
    :param narrowed: reads them.
    :param positions: further projections, which only some models of the family have.
    :param biased: the attention module that is given a bias for each head from outside.
    :param width: the configuration's key of the number of neurons.
    """

    layers: str
    projections: tuple[str, ...]
    mixed: str
    widened: str
    narrowed: str
    positions: tuple[str, ...] = ()
    biased: str = ""
    width: str = "intermediate_size"


def _named(prefix: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{prefix}.{name}" for name in names)


_DENSE = ("attention.output.dense", "intermediate.dense", "output.dense")
_BERT = Family("encoder.layer", _named("attention.self", "query", "key", "value"), *_DENSE)
_OUTER = _named("attention.self", "query_proj", "key_proj", "value_proj")
FAMILIES = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "electra"), _BERT),
    "deberta-v2": Family("encoder.layer", _OUTER, *_DENSE, positions=_named("attention.self", "pos_key_proj", "pos_query_proj")),
    "distilbert": Family(
        "transformer.layer", _named("attention", "q_lin", "k_lin", "v_lin"), "attention.out_lin", "ffn.lin1", "ffn.lin2", width="hidden_dim"
    ),
    "modernbert": Family("layers", ("attn.Wqkv",), "attn.Wo", "mlp.Wi", "mlp.Wo"),
    "mpnet": Family(
        "encoder.layer", _named("attention.attn", "q", "k", "v"), "attention.attn.o", "intermediate.dense", "output.dense",
        biased="attention.attn",
    ),
}  # fmt: skip
"""By ``model_type`` of the configuration."""


@dataclass(frozen=True, slots=True)
class Units:
    """Heads or neurons of one layer: between the matrices that make them and the one that reads them.

    :param makers: their outputs are the units, one after the other, once or (queries, keys and values in one) several times.
    :param reader: its inputs are the units.
    :param count: how many there are.
    """

    makers: tuple[nn.Linear, ...]
    reader: nn.Linear
    count: int

    @property
    def size(self) -> int:
        """Values of a unit."""
        return self.reader.in_features // self.count

    @property
    def weights(self) -> int:
        """Parameters of a unit, biases among them."""
        made = sum(parameter.numel() for maker in self.makers for parameter in maker.parameters())
        return (made + self.reader.weight.numel()) // self.count

    def empty(self) -> list[int]:
        """Units that nothing reads."""
        return (~self.reader.weight.view(-1, self.count, self.size).any(dim=2).any(dim=0)).nonzero().flatten().tolist()

    @torch.no_grad()
    def keep(self, units: list[int]) -> None:
        """Take all others out of the matrices."""
        for maker in self.makers:
            rows = self._places(units, maker.out_features)
            maker.weight = nn.Parameter(maker.weight[rows])
            maker.bias = nn.Parameter(maker.bias[rows]) if maker.bias is not None else None
            maker.out_features = len(rows)
        columns = self._places(units, self.reader.in_features)
        self.reader.weight = nn.Parameter(self.reader.weight[:, columns].contiguous())
        self.reader.in_features = len(columns)

    @torch.no_grad()
    def clear(self, units: list[int]) -> None:
        """Set all weights of these to zero, where they stay: neither side then hands on a gradient to the other."""
        for maker in self.makers:
            for parameter in maker.parameters():
                parameter[self._places(units, maker.out_features)] = 0
        self.reader.weight[:, self._places(units, self.reader.in_features)] = 0

    def _places(self, units: list[int], values: int) -> torch.Tensor:
        """Where the values of these units stand among all."""
        return torch.arange(values).view(-1, self.count, self.size)[:, units].flatten()


def family_of(config: PreTrainedConfig, key: str) -> Family:
    """The family of a backbone.

    :param key: the parameter that asks for it.
    :raises ParamsError: when nobody has said where its parts lie.
    """
    found = FAMILIES.get(config.model_type)
    if found is None:
        raise ParamsError(f"{key}: not possible with a backbone of the family {config.model_type}, only with {', '.join(sorted(FAMILIES))}")
    return found


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """The encoder's layers, the lowest first."""
    found: Any = model.base_model.get_submodule(FAMILIES[model.config.model_type].layers)
    return found  # type: ignore[no-any-return]


def heads_of(model: PreTrainedModel) -> list[Units]:
    """The attention heads of each layer."""
    family, count = FAMILIES[model.config.model_type], int(model.config.num_attention_heads)
    return [_units(layer, (*family.projections, *_there(layer, family.positions)), family.mixed, count) for layer in layers_of(model)]


def neurons_of(model: PreTrainedModel) -> list[Units]:
    """The neurons of each layer's feed-forward network."""
    family = FAMILIES[model.config.model_type]
    count = int(getattr(model.config, family.width))
    return [_units(layer, (family.widened,), family.narrowed, count) for layer in layers_of(model)]


def _units(layer: nn.Module, makers: tuple[str, ...], reader: str, count: int) -> Units:
    made: Any = tuple(layer.get_submodule(name) for name in makers)
    read: Any = layer.get_submodule(reader)
    return Units(made, read, count)


def _there(layer: nn.Module, names: tuple[str, ...]) -> tuple[str, ...]:
    known = {name for name, _ in layer.named_modules()}
    return tuple(name for name in names if name in known)


def remove_zero_heads(model: PreTrainedModel) -> PreTrainedModel:
    """Take the heads that were pruned, whose weights are zero, out of a loaded checkpoint; its answers stay what they are.

    A configuration has one number of heads for all layers and derives their size from it, so that a checkpoint can't say that some are
    gone. After this the model can be run and exported but not saved. One head of a layer stays even where all are zero.

    :return: the same model; one of a family that is not pruned is left alone.
    """
    family = FAMILIES.get(model.config.model_type)
    if family is None:
        return model
    for layer, heads in zip(layers_of(model), heads_of(model), strict=True):
        empty = heads.empty()
        kept = [head for head in range(heads.count) if head not in empty] or [0]
        if len(kept) == heads.count:
            continue
        heads.keep(kept)
        counting: list[Any] = [module for module in layer.modules() if hasattr(module, "num_attention_heads")]
        for module in counting:  # DeBERTa's and MPNet's forward passes do
            module.num_attention_heads, module.all_head_size = len(kept), heads.reader.in_features
        if family.biased:
            layer.get_submodule(family.biased).register_forward_pre_hook(_BiasOf(kept))
    return model


class _BiasOf:
    """Hands an attention module only the position bias of its own heads: the encoder makes it for all."""

    def __init__(self, heads: list[int]) -> None:
        self._heads = heads

    def __call__(self, _: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        states, mask, bias, *rest = given  # bias (1, heads, t, t)
        return (states, mask, bias[:, self._heads], *rest)
