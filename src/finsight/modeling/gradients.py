"""What a batch of training rows adds to the gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from finsight.errors import ParamsError
from finsight.modeling.batching import Data, collate, rounded
from finsight.modeling.device import Hardware
from finsight.modeling.epochs import Batch
from finsight.modeling.frozen import FrozenLayers
from finsight.modeling.inference import to_device
from finsight.modeling.losses import Push, soft_cross_entropy
from finsight.modeling.optimisation import freeze, frozen_at
from finsight.modeling.replay import MULTIPLE, Replay, recordable
from finsight.modeling.stream import Stream

if TYPE_CHECKING:  # pydantic is not on every GPU image
    from finsight.params.train import TrainParams


def compute_twice(model: PreTrainedModel) -> None:
    """Let a model keep few activations and compute the others anew in the backward pass.

    :raises ParamsError: when it can't.
    """
    # Its name before transformers 5.20 was another.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False})
    except ValueError as error:
        raise ParamsError(f"train.gradient_checkpointing: {error} Set it to false.") from None


class Gradients:
    """The forward and backward passes of a training.

    :param divided: whether the weights are divided among processes, so that no layer's output can be kept in one.
    """

    recorded = True
    """Whether the passes of batches of one width are the same, as a recording needs."""

    def __init__(self, model: PreTrainedModel, data: Data | Stream, recipe: TrainParams, hardware: Hardware, divided: bool) -> None:
        self._model, self._data, self._recipe, self._hardware = model, data, recipe, hardware
        self._divided = divided
        self._frozen: FrozenLayers | None = None
        plain = self.recorded and not (divided or recipe.adversarial or recipe.gradient_checkpointing)
        self.replayed = plain and recordable(model, hardware.device)
        """Whether passes are recorded and played again: gradients have to stay where they are in memory."""
        self._longest = data.longest if isinstance(data, Stream) else max((len(row) for row in data.train.ids), default=0)
        self._replay: Replay | None = None
        self.scaler = torch.amp.GradScaler(hardware.device.type, enabled=hardware.dtype == torch.float16)
        self.total = torch.zeros((), device=hardware.device)
        """Summed loss of the rows since it was last set to zero, in this process."""

    def widths(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens that training rows of these lengths take in a batch."""
        return np.minimum(rounded(lengths, MULTIPLE), self._longest) if self.replayed else lengths

    def begin(self, epoch: int, some: Batch) -> None:
        """Set what learns in an epoch (from 0).

        :param some: rows to try on whether frozen layers can be left out of the passes.
        """
        layers = frozen_at(self._recipe, epoch)
        changed = epoch == 0 or layers != frozen_at(self._recipe, epoch - 1)
        freeze(self._model, layers)
        self._model.train()
        if not layers:
            self._frozen = None
        elif self._frozen is None or changed:
            found = FrozenLayers(self._model, layers)
            self._frozen = found if not self._divided and found.fits(*self._batch(some, 0)) else None
            if self._frozen and isinstance(self._data, Data):
                self._frozen.keep(self._data.train.ids, self._data.pad_id, 4 * self._recipe.batch_tokens, self._hardware)
        if self.replayed and (changed or self._replay is None):
            self._replay = None if self._frozen else Replay(self._learn)

    def add(self, batch: Batch, weight: float, scale: float) -> None:
        """Add the gradients of a batch, and of the same batch pushed against them if the recipe says so.

        :param weight: of the batch's loss; 0 runs the passes, which other processes may wait for, and adds nothing.
        :param scale: multiplies the gradients but not the loss that is reported.
        """
        data, rows = batch.data, batch.rows
        ours = np.float32(weight) * data.weights[rows]
        width = int(self.widths(np.array([len(data.train.ids[i]) for i in rows])).max()) if self._replay else 0
        if self._replay and self._replay.again(width):
            more = max(1, self._recipe.batch_tokens // width) - len(rows)  # that weigh nothing
            rows, ours = np.append(rows, np.repeat(rows[:1], more)), np.append(ours, np.zeros(more, dtype=np.float32))
        tokens, mask = self._batch(Batch(data, rows), width)
        target, weights = to_device(self._hardware.device, data.targets[rows], ours)
        if self._replay:
            self._replay(width, [tokens, mask, target, weights, *to_device(self._hardware.device, np.array(scale, dtype=np.float32))])
            return
        with self._hardware.autocast():
            hidden = self._frozen.hidden(rows, tokens, mask) if self._frozen else None
        self._learn(tokens, mask, target, weights, scale, hidden)

    def _learn(
        self,
        tokens: torch.Tensor,
        mask: torch.Tensor,
        target: torch.Tensor,
        weights: torch.Tensor,
        scale: torch.Tensor | float,
        hidden: torch.Tensor | None = None,
    ) -> None:
        """The passes of a batch on the device; see :meth:`add`."""
        passes = 2 if self._recipe.r_drop else 1
        scale = scale / (2 if self._recipe.adversarial else 1)

        def descend() -> torch.Tensor:
            with self._hardware.autocast():
                logits = self._logits(tokens.repeat(passes, 1), mask.repeat(passes, 1), hidden)  # (passes * b, k)
            loss = soft_cross_entropy(logits, target, weights, self._recipe.r_drop, self._recipe.focal)
            self.scaler.scale(loss * scale).backward()  # type: ignore[no-untyped-call]
            return loss.detach()

        if self._recipe.adversarial:
            push = Push(self._model, self._recipe.adversarial)
            with push.watched():
                self.total += descend()
            with push.pushed():
                descend()
        else:
            self.total += descend()

    def _logits(self, tokens: torch.Tensor, mask: torch.Tensor, hidden: torch.Tensor | None) -> torch.Tensor:
        if hidden is None or self._frozen is None:
            found: torch.Tensor = self._model(input_ids=tokens, attention_mask=mask).logits
        else:
            with self._frozen.replaced(hidden.repeat(len(tokens) // len(hidden), 1, 1)):
                found = self._model(input_ids=tokens, attention_mask=mask).logits
        return found

    def _batch(self, batch: Batch, width: int) -> list[torch.Tensor]:
        return to_device(self._hardware.device, *collate([batch.data.train.ids[i] for i in batch.rows], self._data.pad_id, width))
