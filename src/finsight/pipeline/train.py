"""Train: a backbone fine-tuned on the prepared rows, the epoch chosen on validation."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from finsight.domain.labels import targets
from finsight.domain.metrics import accuracy, confusion_matrix, macro_f1, nll, softmax
from finsight.errors import ArtifactError, ParamsError
from finsight.files import folder_digest, read_json, write_json
from finsight.modeling.backbone import load_model, load_tokenizer
from finsight.modeling.checkpoint import save_checkpoint
from finsight.modeling.device import deterministic, resolve_device, resolve_precision
from finsight.modeling.training import Observer, Progress, fit
from finsight.params.train import TrainParams
from finsight.pipeline.tables import BACKBONE, TOKENIZER, read_rows, write_csv

if TYPE_CHECKING:
    from finsight.ports import Backbone


def train(
    prepared: Path,
    labels: Sequence[str],
    params: TrainParams,
    backbone: Backbone,
    checkpoint: Path,
    report: Path,
    curves: Path,
    observers: Sequence[Observer] = (),
) -> dict[str, Any]:
    """Fine-tune ``backbone`` and write the best epoch to ``checkpoint``; return what ``report`` says.

    :param curves: CSV of loss and validation metrics by epoch, written anew after each, so that plots follow a running stage.
    """
    tokenised = read_json(prepared / BACKBONE, "dvc repro prepare").get("sha256")
    if tokenised != backbone.digest:
        raise ArtifactError(
            f"{prepared}: made for a backbone with weights {str(tokenised)[:12]}…, {backbone.name} now has {backbone.digest[:12]}…; "
            "its files have changed: run `dvc repro --force prepare`"
        )
    (rows, agreements), (validation, _) = (read_rows(prepared / f"{split}.parquet") for split in ("train", "validation"))
    device = resolve_device(params.device)
    dtype = resolve_precision(params.precision, device)
    history: list[Mapping[str, float]] = []

    def keep_curves(progress: Progress) -> None:
        if progress.metrics:
            history.append(progress.metrics)
            write_csv(curves, history)

    started = time.monotonic()
    with deterministic(params.seed):
        model = load_model(backbone.folder, labels, "eager" if device.type == "cpu" else "sdpa", new_head=True)
        pad_id = load_tokenizer(prepared / TOKENIZER).pad_token_id

        def measure(logits: NDArray[np.float32], actual: NDArray[np.int64]) -> dict[str, float]:
            return validation_metrics(logits, actual, len(labels))

        goal = targets(rows.labels, len(labels), agreements if params.soft_labels else None).astype(np.float32)
        try:
            fitted = fit(model, rows, goal, validation, params, int(pad_id), device, dtype, measure, [keep_curves, *observers])
        except torch.OutOfMemoryError:
            raise ParamsError(
                f"train.batch_tokens: {params.batch_tokens} tokens a step do not fit into the memory of {device}; "
                f"set it to {params.batch_tokens // 2}"
            ) from None
    seconds = time.monotonic() - started
    save_checkpoint(model, prepared / TOKENIZER, checkpoint)
    content = {
        "best_epoch": fitted.epoch,
        **{k: v for k, v in fitted.epochs[fitted.epoch - 1].items() if k != "epoch"},
        "rows": len(rows),
        "device": device.type,
        "precision": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 1),
        "rows_per_second": round(params.epochs * len(rows) / seconds, 1),
        "backbone": backbone.about(),
        "checkpoint_sha256": folder_digest(checkpoint),
    }
    write_json(report, content)
    return content


def validation_metrics(logits: NDArray[np.float32], actual: NDArray[np.int64], k: int) -> dict[str, float]:
    """What chooses the epoch: loss (nats, without smoothing), accuracy, macro-F1."""
    probs = softmax(logits)
    matrix = confusion_matrix(actual, probs.argmax(axis=1), k)
    return {"loss": nll(actual, probs), "accuracy": float(accuracy(matrix)), "macro_f1": float(macro_f1(matrix))}
