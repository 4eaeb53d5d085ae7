"""The forward pass over many rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from finsight.modeling.batching import batches, collate
from finsight.modeling.device import Hardware


@torch.no_grad()
def predict(
    model: PreTrainedModel, ids: Sequence[NDArray[np.int32]], pad_id: int, batch_tokens: int, hardware: Hardware
) -> NDArray[np.float32]:
    """Logits (n, k) of token id rows, in their order; the model is left in evaluation mode."""
    model.eval().to(hardware.device)
    out = np.zeros((len(ids), model.config.num_labels), dtype=np.float32)
    for rows in batches(np.array([len(row) for row in ids], dtype=np.int64), batch_tokens):
        tokens, mask = to_device(hardware.device, *collate([ids[i] for i in rows], pad_id))
        with hardware.autocast():
            out[rows] = model(input_ids=tokens, attention_mask=mask).logits.float().cpu().numpy()  # (b, k)
    return out


def to_device(device: torch.device, *arrays: NDArray[Any]) -> list[torch.Tensor]:
    """The arrays as tensors; a GPU fetches them itself, while the host goes on."""
    tensors = [torch.from_numpy(a) for a in arrays]
    return [t.pin_memory().to(device, non_blocking=True) for t in tensors] if device.type == "cuda" else tensors
