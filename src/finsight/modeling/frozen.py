"""The lowest layers of a model that don't learn: their output for a row is always the same, so it is computed once and kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from finsight.modeling.batching import batches, collate
from finsight.modeling.device import Hardware
from finsight.modeling.inference import to_device
from finsight.modeling.optimisation import LAYER

MOST_BYTES = 4 * 2**30
"""Memory for what is kept; a larger training set is computed anew each time."""


class _ReachedError(Exception):
    """The hidden states have arrived where they were wanted."""


class FrozenLayers:
    """The embeddings and the lowest layers, in evaluation mode.

    :param layers: how many don't learn, the embeddings counting as the first.
    """

    def __init__(self, model: PreTrainedModel, layers: int) -> None:
        stack = next(found["stack"] for name, _ in model.named_parameters() if (found := LAYER.match(name)))
        self._name: str = stack.rpartition(".")[2]
        self._parent = model.get_submodule(stack.rpartition(".")[0])
        # ELECTRA's small models widen theirs in a second module.
        self._embeddings = [module for name, module in model.base_model.named_children() if "embeddings" in name]
        self._all: nn.ModuleList = getattr(self._parent, self._name)
        self._upper = nn.ModuleList(self._all[layers - 1 :])
        self._model, self._lower = model, [*self._embeddings, *self._all[: layers - 1]]
        self._kept: dict[int, torch.Tensor] = {}

    def fits(self, tokens: torch.Tensor, mask: torch.Tensor) -> bool:
        """Whether the model in two parts gives the logits that it gives in one: what an architecture does between its layers can
        forbid it."""
        was = self._model.training
        self._model.eval()
        try:
            with torch.no_grad():
                expected = self._model(input_ids=tokens, attention_mask=mask).logits
                with self.replaced(self._hidden(tokens, mask)):
                    got = self._model(input_ids=tokens, attention_mask=mask).logits
            return bool(torch.allclose(got, expected, atol=1e-4))
        except (RuntimeError, TypeError, AttributeError):
            return False
        finally:
            self._model.train(was)

    @contextmanager
    def replaced(self, hidden: torch.Tensor) -> Iterator[None]:
        """Let the model's forward pass begin at the first layer that learns, with these hidden states."""
        setattr(self._parent, self._name, self._upper)
        for module in self._embeddings:
            module.forward = lambda *_, **__: hidden
        try:
            yield
        finally:
            for module in self._embeddings:
                del module.forward
            setattr(self._parent, self._name, self._all)

    def keep(self, ids: Sequence[NDArray[np.int32]], pad_id: int, batch_tokens: int, hardware: Hardware) -> None:
        """Compute the hidden states of all training rows, if they fit into memory.

        In an order of their own, since the last bits depend on what stands in a batch beside a row: a run that goes on needs the same.
        """
        lengths = np.array([len(row) for row in ids], dtype=np.int64)
        if lengths.sum() * self._model.config.hidden_size * 4 > MOST_BYTES:
            return
        for rows in batches(lengths, batch_tokens):
            tokens, mask = to_device(hardware.device, *collate([ids[i] for i in rows], pad_id))
            with hardware.autocast():
                found = self._hidden(tokens, mask)
            self._kept |= {int(row): found[i, : lengths[row]].to("cpu", copy=True) for i, row in enumerate(rows)}

    def hidden(self, rows: Sequence[int] | NDArray[np.int64], tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """What the frozen layers make of these training rows, (b, t, d)."""
        if not self._kept:
            return self._hidden(tokens, mask)
        padded = nn.utils.rnn.pad_sequence([self._kept[int(row)] for row in rows], batch_first=True)
        return padded.to(tokens.device, non_blocking=True)

    @torch.no_grad()
    def _hidden(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Run the model up to the first layer that learns; in evaluation mode, since dropout would differ from time to time."""
        caught: list[torch.Tensor] = []

        def stop(_: nn.Module, positional: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]) -> None:
            caught.append(positional[0] if positional else named["hidden_states"])
            raise _ReachedError

        states = [(module, module.training) for module in self._lower]
        hook = self._upper[0].register_forward_pre_hook(stop, with_kwargs=True)
        try:
            for module in self._lower:
                module.eval()
            self._model(input_ids=tokens, attention_mask=mask)
        except _ReachedError:
            pass
        finally:
            hook.remove()
            for module, training in states:
                module.train(training)
        return caught[0]
