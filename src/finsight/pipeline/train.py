"""Train: a backbone fine-tuned on the prepared rows, the epoch chosen on validation."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from finsight.domain.labels import targets
from finsight.domain.metrics import accuracy, confusion_matrix, macro_f1, nll, softmax
from finsight.errors import ArtifactError, ParamsError
from finsight.files import folder_digest, read_json, write_json
from finsight.modeling.backbone import load_tokenizer
from finsight.modeling.checkpoint import save_checkpoint
from finsight.modeling.device import Hardware, deterministic, resolve_device, resolve_precision
from finsight.modeling.distributed import World, any_of, joined, whole
from finsight.modeling.resume import Keeper, sweep
from finsight.modeling.training import Data, Fitted, Observer, Progress, fit
from finsight.params.train import TrainParams
from finsight.pipeline.distillation import fresh, key, mixed, teach, teachers_recipe
from finsight.pipeline.tables import BACKBONE, TOKENIZER, UNLABELLED, read_rows, read_table, write_csv

if TYPE_CHECKING:
    from finsight.ports import Backbone

# What a CPU says when memory runs out; CUDA has an exception of its own.
_FULL = ("not enough memory", "can't allocate memory", "DefaultCPUAllocator")


def train(
    prepared: Path,
    labels: Sequence[str],
    params: TrainParams,
    backbone: Backbone,
    checkpoint: Path,
    report: Path,
    curves: Path,
    observers: Sequence[Observer] = (),
    *,
    scratch: Path,
    teacher: Backbone | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Fine-tune ``backbone`` and write the best epoch to ``checkpoint``; return what ``report`` says.

    ``report`` and ``curves`` are written anew after each epoch, so that `dvc exp show` and plots follow a running stage.

    :param curves: CSV of loss and validation metrics by epoch.
    :param scratch: folder for what a killed run goes on from, and for what was timed on this host.
    :param teacher: the backbone that ``train.teacher`` names.
    :param stop: whether to keep the state and end.
    """
    tokenised = read_json(prepared / BACKBONE, "dvc repro prepare")
    if tokenised.get("sha256") != backbone.digest:
        raise ArtifactError(
            f"{prepared}: made for a backbone with weights {str(tokenised.get('sha256'))[:12]}…, {backbone.name} now has "
            f"{backbone.digest[:12]}…; its files have changed: run `dvc repro --force prepare`"
        )
    sweep(scratch)
    strict = params.determinism == "strict"
    device = resolve_device(params.device)
    started = time.monotonic()
    with deterministic(params.seed, params.threads, strict), joined(device.type, params.launch.sharded) as world:
        if device.type == "cuda":
            device = torch.device("cuda", world.local_rank)
        hardware = Hardware(device, resolve_precision(params.precision, device, None if strict else scratch))
        data = read_data(prepared, labels, params)
        work = _Work(labels, hardware, scratch, world, observers, stop)
        if teacher:
            data = _listen(work, prepared, int(tokenised["max_length"]), data, params, teacher)
        history: list[Mapping[str, float]] = []

        def follow(progress: Progress) -> None:
            if progress.metrics:
                history.append(progress.metrics)
                write_csv(curves, history)
                write_json(report, {"epoch": progress.epoch, **_plain(progress.metrics)})

        work = replace(work, observers=[follow, *observers])
        model, fitted, used = work.fit(backbone, data, params, "", history.extend)
        seconds = time.monotonic() - started
        content = {
            "best_epoch": fitted.epoch,
            **_plain(fitted.epochs[fitted.epoch - 1]),
            "epochs": len(fitted.epochs),
            "rows": len(data.train),
            "device": device.type,
            "precision": str(hardware.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "processes": world.size,
            "batch_tokens": used.batch_tokens,
            "accumulation": used.accumulation,
            "seconds": round(seconds, 1),
            "rows_per_second": round(fitted.rows / seconds, 1),
            "backbone": backbone.about(),
            "teacher": teacher.about() if teacher else None,
        }
        if world.first:
            save_checkpoint(model, prepared / TOKENIZER, checkpoint)
            content["checkpoint_sha256"] = folder_digest(checkpoint)
            write_json(report, content)
            work.clear()
    return content


def _digest(*arrays: NDArray[Any]) -> str:
    """One SHA-256 of some arrays."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _plain(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name != "epoch"}


def read_data(prepared: Path, labels: Sequence[str], params: TrainParams) -> Data:
    """The labelled rows with their targets and weights."""
    (rows, agreements), (validation, _) = (read_rows(prepared / f"{split}.parquet") for split in ("train", "validation"))
    k = len(labels)
    goal = targets(rows.labels, k, agreements if params.soft_labels else None)
    goal = (1 - params.label_smoothing) * goal + params.label_smoothing / k
    weights = np.ones(len(rows), dtype=np.float32)
    if params.class_weights == "balanced":
        weights = (len(rows) / k / np.maximum(1, np.bincount(rows.labels, minlength=k)))[rows.labels].astype(np.float32)
    pad_id = load_tokenizer(prepared / TOKENIZER).pad_token_id
    return Data(rows, goal.astype(np.float32), weights, validation, int(pad_id))


def _listen(work: _Work, prepared: Path, max_length: int, data: Data, params: TrainParams, teacher: Backbone) -> Data:
    """The student's data with the teacher's probabilities, which are kept: they take longer than the student does."""
    unlabelled, _ = read_rows(prepared / UNLABELLED)
    texts = {split: read_table(prepared / f"{split}.parquet", ["text"])["text"] for split in ("train", "validation", "unlabelled")}
    own = params.distillation
    recipes = [teachers_recipe(params, seed) for seed in range(own.seeds)]
    asked = [recipe.model_dump(exclude={"backbone", "distillation", "save_every", "threads"}) for recipe in recipes]
    texts_of = [np.frombuffer("\0".join(found.to_pylist()).encode(), dtype=np.uint8) for found in texts.values()]
    content = _digest(*texts_of, data.targets, data.validation.labels)
    keeper = Keeper(work.scratch / f"teacher-{work.key(teacher, asked, own.temperature, content)}.safetensors", 0)
    kept = keeper.load()
    if any_of(work.world, kept is None):  # on several machines one may have it, and another not

        def trained(recipe: TrainParams, theirs: Data, name: str) -> Any:
            return work.fit(teacher, theirs, recipe, name)[0]

        probs = teach(texts, data, max_length, work.labels, recipes, own.temperature, teacher, trained, work.hardware)
        if work.world.first:
            keeper.save({"probs": torch.from_numpy(probs)}, {})
        work.clear()
    else:
        probs = kept[0]["probs"].numpy() if kept else np.zeros(0, dtype=np.float32)
    return mixed(data, unlabelled.ids, probs, own.weight)


@dataclass(frozen=True)
class _Work:
    """What the fits of one run have in common."""

    labels: Sequence[str]
    hardware: Hardware
    scratch: Path
    world: World
    observers: Sequence[Observer]
    stop: Callable[[], bool]
    kept: list[Keeper] = field(default_factory=list)

    def key(self, backbone: Backbone, *parts: object) -> str:
        """A digest of what a fit depends on."""
        return key(backbone.digest, list(self.labels), self.world.size, self.hardware, *parts)

    def fit(
        self,
        backbone: Backbone,
        data: Data,
        params: TrainParams,
        name: str,
        restored: Callable[[list[dict[str, float]]], None] = lambda _: None,
    ) -> tuple[Any, Fitted, TrainParams]:
        """The fitted model, what was measured, and the recipe that fitted into memory."""
        while True:
            asked = params.model_dump(exclude={"save_every", "threads"})
            state = self.key(backbone, name, asked, _digest(*data.train.ids, data.targets, data.weights, *data.validation.ids))
            keeper = Keeper(self.scratch / f"state-{state}.safetensors", params.save_every)
            self.kept.append(keeper)

            def named(progress: Progress) -> None:
                for observe in self.observers:
                    observe(replace(progress, name=name))

            model = fresh(backbone.folder, self.labels, params, self.hardware.device)
            try:
                fitted = fit(
                    model,
                    data,
                    params,
                    self.hardware,
                    lambda logits, actual: validation_metrics(logits, actual, len(self.labels)),
                    [named],
                    keeper=keeper,
                    stop=self.stop,
                    world=self.world,
                    restored=restored,
                )
            except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
                if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and not any(words in str(error) for words in _FULL):
                    raise
                full = error.__class__.__name__
            else:
                return self._undivided(model, backbone, params), fitted, params
            del model  # its memory is needed
            half = params.batch_tokens // 2
            if not params.auto_batch or half < 8:
                raise ParamsError(
                    f"train.batch_tokens: {params.batch_tokens} tokens a batch do not fit into the memory of {self.hardware.device} "
                    f"({full}); set it to {half} and train.accumulation to {2 * params.accumulation}, or train.auto_batch to true"
                )
            params = params.model_copy(update={"batch_tokens": half, "accumulation": 2 * params.accumulation})

    def _undivided(self, model: Any, backbone: Backbone, params: TrainParams) -> Any:
        """The model with all its weights in this process."""
        if not self.world.sharded:
            return model
        plain = fresh(backbone.folder, self.labels, params, self.hardware.device)
        for mine, divided in zip(plain.parameters(), model.parameters(), strict=True):
            mine.data.copy_(whole(divided.data))
        return plain

    def clear(self) -> None:
        """What was kept is not needed any more."""
        for keeper in self.kept if self.world.first else ():
            keeper.clear()


def validation_metrics(logits: NDArray[np.float32], actual: NDArray[np.int64], k: int) -> dict[str, float]:
    """What chooses the epoch: loss (nats, without smoothing), accuracy, macro-F1."""
    probs = softmax(logits)
    matrix = confusion_matrix(actual, probs.argmax(axis=1), k)
    return {"loss": nll(actual, probs), "accuracy": float(accuracy(matrix)), "macro_f1": float(macro_f1(matrix))}
