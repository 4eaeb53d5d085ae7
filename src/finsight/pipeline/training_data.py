"""What a training learns from: rows that are held, or a stream of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from finsight.domain.labels import targets
from finsight.modeling.backbone import load_tokenizer
from finsight.modeling.batching import Data, Rows
from finsight.modeling.stream import Stream
from finsight.params.train import TrainParams
from finsight.pipeline.prepared_rows import PreparedRows
from finsight.pipeline.raw import readable
from finsight.pipeline.tables import TOKENIZER, read_rows
from finsight.pipeline.token_shards import Shards

if TYPE_CHECKING:
    from finsight.ports import Backbone
    from finsight.shard_ports import FileStore


def training_data(
    prepared: Path, labels: Sequence[str], params: TrainParams, backbone: Backbone, shards: FileStore | None
) -> Data | Stream:
    """The training rows of a prepared folder; of ``shards`` where they are given.

    Shards, and more rows than ``train.stream.above``, are not held in memory but read while they are learned from.
    """
    path = prepared / "train.parquet"
    if shards is None:
        with readable(path):
            rows = pq.read_metadata(path).num_rows
        if rows <= params.stream.above:
            return read_data(prepared, labels, params)
    source = PreparedRows(path) if shards is None else Shards(shards, labels, backbone.digest)
    validation, pad_id = _validation(prepared)
    k, counts = len(labels), source.labels(len(labels))

    def read(piece: int) -> Data:
        found = source.read(piece)
        goal = _targets(found.labels, k, found.agreements, params)
        return Data(Rows(found.ids, found.labels), goal, _weights(found.labels, counts, params), validation, pad_id)

    return Stream(source.sizes, source.tokens, source.longest, params.stream.shuffle_buffer, read, validation, pad_id, source.digest())


def read_data(prepared: Path, labels: Sequence[str], params: TrainParams) -> Data:
    """The labelled rows with their targets and weights, all in memory."""
    rows, agreements = read_rows(prepared / "train.parquet")
    k = len(labels)
    weights = _weights(rows.labels, np.bincount(rows.labels, minlength=k), params)
    return Data(rows, _targets(rows.labels, k, agreements, params), weights, *_validation(prepared))


def _validation(prepared: Path) -> tuple[Rows, int]:
    """What chooses the epoch, which is held in any case, and the token that fills a batch's shorter rows."""
    return read_rows(prepared / "validation.parquet")[0], int(load_tokenizer(prepared / TOKENIZER).pad_token_id)


def _targets(labels: NDArray[np.int64], k: int, agreements: Sequence[int | None], params: TrainParams) -> NDArray[np.float32]:
    goal = targets(labels, k, agreements if params.soft_labels else None)
    return ((1 - params.label_smoothing) * goal + params.label_smoothing / k).astype(np.float32)


def _weights(labels: NDArray[np.int64], counts: NDArray[np.int64], params: TrainParams) -> NDArray[np.float32]:
    """:param counts: of all training rows, by label (k,)."""
    if params.class_weights == "none":
        return np.ones(len(labels), dtype=np.float32)
    balanced: NDArray[np.float64] = counts.sum() / len(counts) / np.maximum(1, counts)
    return balanced[labels].astype(np.float32)
