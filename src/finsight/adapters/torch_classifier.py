"""A checkpoint as a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finsight.modeling.backbone import load_tokenizer
from finsight.modeling.checkpoint import load_checkpoint
from finsight.modeling.device import Hardware, resolve_device
from finsight.modeling.inference import predict

BATCH_TOKENS = {"cpu": 4096, "cuda": 16384}  # twice the first is no faster on two cores


class TorchClassifier:
    """Scores with torch, in fp32 unless told otherwise: this is what exports are compared with.

    :param device: as in ``train.device``.
    :param half: weights and products in fp16, for GPUs.
    """

    def __init__(self, checkpoint: Path, max_length: int, device: str = "cpu", half: bool = False) -> None:
        self._model, self._labels = load_checkpoint(checkpoint)
        if half:
            self._model.half()
        self._tokenizer = load_tokenizer(checkpoint)
        self._max_length = max_length
        self._hardware = Hardware(resolve_device(device))

    @property
    def labels(self) -> Sequence[str]:
        """See :class:`finsight.ports.Classifier`."""
        return self._labels

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See :class:`finsight.ports.Classifier`."""
        if not texts:
            return np.zeros((0, len(self._labels)), dtype=np.float32)
        encoded = self._tokenizer(list(texts), truncation=True, max_length=self._max_length)["input_ids"]
        ids = [np.asarray(row, dtype=np.int32) for row in encoded]
        budget = BATCH_TOKENS[self._hardware.device.type]
        return predict(self._model, ids, int(self._tokenizer.pad_token_id), budget, self._hardware)
