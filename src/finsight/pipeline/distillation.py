"""What a larger model, trained first on the same rows, teaches the backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finsight.domain.metrics import softmax
from finsight.domain.variants import variants
from finsight.modeling.backbone import load_tokenizer, longest_text
from finsight.modeling.batching import Data, Rows
from finsight.modeling.inference import predict
from finsight.modeling.tokens import TextTokenizer
from finsight.modeling.training import Fitted
from finsight.params.train import TrainParams
from finsight.pipeline.words import encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from finsight.modeling.device import Hardware
    from finsight.ports import Backbone

Train = Callable[[TrainParams, Data, str], tuple[Any, Fitted]]
"""Trains a teacher by a recipe on data, under a name that tells it from others; returns the model and what was measured."""


def teachers_recipe(params: TrainParams, number: int) -> TrainParams:
    """The recipe of one teacher (from 0): the student's, but for what ``distillation`` says; it has no teacher of its own."""
    own = params.distillation
    seed = params.seed + 1000 * (number + 1) if own.seed is None else own.seed + number
    theirs = {"epochs": own.epochs, "lr": own.lr, "seed": seed % 2**32, "frozen_layers": own.frozen_layers}
    return params.model_copy(update={**theirs, "teacher": None, "unfreeze_every": 0, "r_drop": 0.0, "adversarial": 0.0, "awp": 0.0})


def teach(
    texts: dict[str, pa.ChunkedArray],
    data: Data,
    max_length: int,
    labels: Sequence[str],
    recipes: Sequence[TrainParams],
    temperature: float,
    teacher: Backbone,
    train: Train,
    hardware: Hardware,
) -> tuple[NDArray[np.float32], list[dict[str, float]]]:
    """Train the teachers; their mean probabilities for the texts of train, then of unlabelled, (n + m, k), and how good each is.

    Texts are tokenised anew, since a teacher has a vocabulary of its own.

    :param texts: of ``train``, ``validation`` and ``unlabelled``, the variants among the last.
    :param recipes: one for each teacher.
    :param temperature: divides the teachers' logits.
    :param data: the student's, whose labels and targets are the teacher's too.
    """
    tokenizer = load_tokenizer(teacher.folder)
    encoder = text_tokenizer(tokenizer, min(max_length, longest_text(teacher.folder, tokenizer)))
    ids = {split: encode_texts(encoder, found) for split, found in texts.items()}
    pad_id = int(tokenizer.pad_token_id or 0)
    theirs = Data(
        Rows(ids["train"], data.train.labels), data.targets, data.weights, Rows(ids["validation"], data.validation.labels), pad_id
    )
    every, reports = [*ids["train"], *ids["unlabelled"]], []
    probs = np.zeros((len(every), len(labels)), dtype=np.float64)
    for number, recipe in enumerate(recipes, start=1):
        model, fitted = train(recipe, theirs, f"teacher {number}")
        best = fitted.epochs[fitted.epoch - 1]
        reports.append({"seed": recipe.seed, "best_epoch": fitted.epoch, "validation_macro_f1": best["validation_macro_f1"]})
        logits = predict(model, every, pad_id, 4 * recipe.batch_tokens, hardware)
        probs += softmax(logits / temperature) / len(recipes)
    return probs.astype(np.float32), reports


def text_tokenizer(tokenizer: PreTrainedTokenizerFast, max_length: int) -> TextTokenizer:
    """Of many texts at once, by the tokenizer of a backbone."""
    return TextTokenizer(tokenizer.backend_tokenizer.to_str(), max_length)


def altered(texts: pa.ChunkedArray, params: TrainParams) -> pa.ChunkedArray:
    """The copies of training texts that ``distillation.variants`` asks for, by the seed of the first teacher."""
    rng = np.random.default_rng(teachers_recipe(params, 0).seed)
    return pa.chunked_array([pa.array(variants(texts.to_pylist(), params.distillation.variants, rng), pa.string())])


def mixed(data: Data, unlabelled: Sequence[NDArray[np.int32]], probs: NDArray[np.float32], weight: float) -> Data:
    """The student's data: labelled rows with both kinds of target, unlabelled ones with the teacher's.

    :param probs: the teacher's, of the labelled and then of the unlabelled rows (n + m, k).
    """
    n, m = len(data.train), len(unlabelled)
    targets = np.concatenate([(1 - weight) * data.targets + weight * probs[:n], probs[n:]]).astype(np.float32)
    rows = Rows([*data.train.ids, *unlabelled], np.concatenate([data.train.labels, probs[n:].argmax(axis=1).astype(np.int64)]))
    weights = np.concatenate([data.weights, np.ones(m, dtype=np.float32)])
    return Data(rows, targets, weights, data.validation, data.pad_id)


def encode_texts(encoder: TextTokenizer, texts: pa.ChunkedArray) -> list[NDArray[np.int32]]:
    """Token ids of each text."""
    if not len(texts):
        return []
    ids, offsets, _ = encode(texts.combine_chunks(), encoder)
    return [ids[start:end] for start, end in pairwise(offsets)]
