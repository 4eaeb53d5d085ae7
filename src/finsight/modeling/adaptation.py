"""Masked language modelling: a backbone reads the texts of its field before it learns from labels.

Source: Devlin et al. 2019, "BERT" (the masks); Gururangan et al. 2020, "Don't Stop Pretraining" (on the texts of the task itself).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from finsight.modeling.batching import Data
from finsight.modeling.device import Hardware
from finsight.modeling.gradients import Gradients
from finsight.modeling.losses import hooked

if TYPE_CHECKING:  # pydantic is not on every GPU image
    from finsight.params.train import TrainParams

# Of the chosen tokens so many become the mask, and so many of the rest another word; what is left stands as it was.
MASKED, REPLACED = 0.8, 0.5


@dataclass(frozen=True, slots=True)
class Masks:
    """How texts are masked.

    :param share: of the tokens that are chosen, special ones apart.
    :param token: id that stands in place of a masked one.
    :param words: ids that are no special tokens (v,).
    """

    share: float
    token: int
    words: NDArray[np.int64]


class MaskedWords(Gradients):
    """The passes of a masked language model, whose loss is that of the chosen tokens, a mean over them; targets of rows are not read.

    Which are chosen is drawn from torch's generator, so that it follows from where the batch stands, as dropout does.
    """

    recorded = False  # the number of chosen tokens differs from batch to batch

    def __init__(self, model: PreTrainedModel, data: Data, recipe: TrainParams, hardware: Hardware, divided: bool, *, masks: Masks) -> None:
        super().__init__(model, data, recipe, hardware, divided)
        self._masks, self._words = masks, torch.from_numpy(masks.words)
        words = sum(int(np.isin(row, masks.words).sum()) for row in data.train.ids)
        self._of_a_row = masks.share * words / max(1, len(data.train)) or 1.0  # chosen tokens, in the mean

    def _learn(
        self,
        tokens: torch.Tensor,
        mask: torch.Tensor,
        _: torch.Tensor,
        weights: torch.Tensor,
        scale: torch.Tensor | float,
        __: torch.Tensor | None = None,
    ) -> None:
        shown, chosen = self.masked(tokens.cpu())
        shown, chosen = shown.to(tokens.device), chosen.to(tokens.device)

        def only_chosen(_module: nn.Module, _given: Any, output: Any) -> Any:
            """The vocabulary is wide: words are told for the chosen tokens alone."""
            return type(output)(last_hidden_state=output.last_hidden_state[chosen])  # (m, d)

        with self._hardware.autocast(), hooked(self._model.base_model, only_chosen):
            logits = self._model(input_ids=shown, attention_mask=mask).logits  # (m, v)
        nats = nn.functional.cross_entropy(logits.float(), tokens[chosen], reduction="none")
        loss = (nats * weights[chosen.nonzero()[:, 0]]).sum() / self._of_a_row
        self.scaler.scale(loss * scale).backward()  # type: ignore[no-untyped-call]
        self.total += loss.detach()

    def masked(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the model sees of a batch (b, t), and which tokens it has to tell (b, t)."""
        chosen = (torch.rand(tokens.shape) < self._masks.share) & torch.isin(tokens, self._words)
        becomes, other = torch.rand(tokens.shape), self._words[torch.randint(len(self._words), tokens.shape)]
        replaced = torch.where(becomes < MASKED + (1 - MASKED) * REPLACED, other, tokens)
        shown = torch.where(becomes < MASKED, torch.full_like(tokens, self._masks.token), replaced)
        return torch.where(chosen, shown, tokens), chosen
