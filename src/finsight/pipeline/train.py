"""Train: a backbone fine-tuned on the prepared rows, the epoch chosen on validation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from finsight.errors import ArtifactError, ParamsError
from finsight.files import folder_digest, read_json, write_json
from finsight.modeling.backbone import load_tokenizer
from finsight.modeling.batching import Data
from finsight.modeling.checkpoint import save_checkpoint
from finsight.modeling.device import Hardware, deterministic, resolve_device, resolve_precision
from finsight.modeling.distributed import from_any, joined
from finsight.modeling.resume import Keeper, sweep
from finsight.modeling.stream import Stream
from finsight.modeling.training import Fitted, Observer, Progress
from finsight.params.train import TrainParams
from finsight.pipeline.adaptation import adapt
from finsight.pipeline.adaptation import check as check_adaptable
from finsight.pipeline.distillation import altered, encode_texts, mixed, teach, teachers_recipe, text_tokenizer
from finsight.pipeline.fitting import NOT_OF_A_FIT, Fitter, digest
from finsight.pipeline.pruned import check, prune_and_recover
from finsight.pipeline.tables import BACKBONE, TOKENIZER, UNLABELLED, read_rows, read_table, write_csv
from finsight.pipeline.training_data import training_data

if TYPE_CHECKING:
    from finsight.ports import Backbone
    from finsight.shard_ports import FileStore


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
    shards: FileStore | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Fine-tune ``backbone`` and write the best epoch to ``checkpoint``; return what ``report`` says.

    ``report`` and ``curves`` are written anew after each epoch, so that `dvc exp show` and plots follow a running stage.

    :param curves: CSV of loss and validation metrics by epoch.
    :param scratch: folder for what a killed run goes on from, and for what was timed on this host.
    :param teacher: the backbone that ``train.teacher`` names.
    :param shards: the folder that ``train.stream.shards`` names.
    :param stop: whether to keep the state and end.
    """
    max_length = _prepared_for(backbone, prepared)
    check(backbone, params)
    check_adaptable(backbone, params)
    sweep(scratch)
    strict = params.determinism == "strict"
    device = resolve_device(params.device)
    started = time.monotonic()
    with deterministic(params.seed, params.threads, strict), joined(device.type, params.launch) as world:
        if device.type == "cuda":
            device = torch.device("cuda", world.local_rank)
        params = divided(params, world.size)
        hardware = Hardware(device, resolve_precision(params.precision, device, None if strict else scratch))
        data = training_data(prepared, labels, params, backbone, shards)
        work = Fitter(labels, hardware, scratch, world, observers, stop)
        if isinstance(data, Stream) and (needs := "teacher" if teacher else "adapt" if params.adapt.epochs else ""):
            raise ParamsError(
                f"train.{needs}: holds all rows in memory, and {len(data)} rows are streamed; raise train.stream.above "
                f"({params.stream.above}) and leave train.stream.shards empty, or turn train.{needs} off"
            )
        teachers: list[dict[str, float]] = []
        if teacher and isinstance(data, Data):
            data, teachers = _listen(work, prepared, max_length, data, params, teacher)
        followed = _Followed(report, curves)
        start, read = adapt(work, backbone, prepared, params) if params.adapt.epochs else (None, None)
        work = replace(work, observers=[followed, *observers])
        keep = params.prune.on and params.prune.epochs > 0  # a recovery that is killed must not wait for the training again
        model, fitted, used = work.fit(backbone, data, params, "", followed.restored, keep, start)
        found = None
        if params.prune.on:
            followed.before = len(fitted.epochs)
            found = prune_and_recover(work, backbone, data, used, model, fitted, followed.restored)
            model = found.model
        seconds = time.monotonic() - started
        content = {
            **_measured(fitted, used, hardware),
            **(_plain(found.metrics) if found else {}),
            "rows": len(data) if isinstance(data, Stream) else len(data.train),
            **({"stream": {"of": params.stream.shards or str(prepared), "sha256": data.digest}} if isinstance(data, Stream) else {}),
            "processes": world.size,
            "seconds": round(seconds, 1),
            "rows_per_second": round((fitted.rows + (found.rows if found else 0)) / seconds, 1),
            "backbone": backbone.about(),
            "teacher": teacher.about() | {"trained": teachers} if teacher else None,
            **({"adapt": read} if read else {}),
            **({"prune": found.report} if found else {}),
        }
    if world.first:  # among others, transformers writes weights in the process of rank 0 alone, which may be another machine's
        save_checkpoint(model, prepared / TOKENIZER, checkpoint)
        content["checkpoint_sha256"] = folder_digest(checkpoint)
        write_json(report, content)
        work.clear()
    return content


def divided(params: TrainParams, processes: int) -> TrainParams:
    """The recipe with as many batches a step for each process; where there aren't, batches become smaller and more, and the step stays
    what it was.

    :raises ParamsError: when a step has too few tokens for so many.
    """
    more = -(-params.accumulation // processes) * processes
    tokens = round(params.batch_tokens * params.accumulation / more)
    if tokens < 8:
        raise ParamsError(
            f"train.batch_tokens: a step of {params.accumulation} x {params.batch_tokens} tokens is too small for {processes} processes; "
            "raise it, or lower train.launch.processes or nodes"
        )
    return params if more == params.accumulation else params.model_copy(update={"batch_tokens": tokens, "accumulation": more})


def _prepared_for(backbone: Backbone, prepared: Path) -> int:
    """The most tokens of a prepared text, if the tokens are those of the backbone."""
    tokenised = read_json(prepared / BACKBONE, "dvc repro prepare")
    if tokenised.get("sha256") != backbone.digest:
        raise ArtifactError(
            f"{prepared}: made for a backbone with weights {str(tokenised.get('sha256'))[:12]}…, {backbone.name} now has "
            f"{backbone.digest[:12]}…; its files have changed: run `dvc repro --force prepare`"
        )
    return int(tokenised["max_length"])


@dataclass
class _Followed:
    """An observer that writes the epochs so far, after each one.

    :param before: epochs of the training when the recovery of the pruned model begins, whose epochs are counted on from there.
    """

    report: Path
    curves: Path
    before: int = 0
    epochs: list[Mapping[str, float]] = field(default_factory=list)

    def __call__(self, progress: Progress) -> None:
        """Write the epoch, if it has ended."""
        if progress.metrics:
            self.restored([progress.metrics])
            write_csv(self.curves, self.epochs)
            write_json(self.report, {"epoch": self.before + progress.epoch, **_plain(progress.metrics)})

    def restored(self, epochs: Sequence[Mapping[str, float]]) -> None:
        """Add epochs that nobody needs to be told of."""
        self.epochs += [{**metrics, "epoch": self.before + metrics["epoch"]} for metrics in epochs]


def _measured(fitted: Fitted, used: TrainParams, hardware: Hardware) -> dict[str, Any]:
    """What came of a fit, and with what."""
    return {
        "best_epoch": fitted.epoch,
        **_plain(fitted.epochs[fitted.epoch - 1]),
        "epochs": len(fitted.epochs),
        "device": hardware.device.type,
        "precision": str(hardware.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "batch_tokens": used.batch_tokens,
        "accumulation": used.accumulation,
    }


def _plain(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name != "epoch"}


def _listen(
    work: Fitter, prepared: Path, max_length: int, data: Data, params: TrainParams, teacher: Backbone
) -> tuple[Data, list[dict[str, float]]]:
    """The student's data with the teachers' probabilities, which are kept since they take longer than it does; how good each is."""
    ids = list(read_rows(prepared / UNLABELLED)[0].ids)
    texts = {split: read_table(prepared / f"{split}.parquet", ["text"])["text"] for split in ("train", "validation", "unlabelled")}
    own = params.distillation
    if own.variants:
        made = altered(texts["train"], params)
        ids += encode_texts(text_tokenizer(load_tokenizer(prepared / TOKENIZER), max_length), made)
        texts["unlabelled"] = pa.chunked_array([*texts["unlabelled"].chunks, *made.chunks])
    recipes = [teachers_recipe(params, number) for number in range(own.seeds)]
    asked = [recipe.model_dump(exclude=NOT_OF_A_FIT) for recipe in recipes]
    texts_of = [np.frombuffer("\0".join(found.to_pylist()).encode(), dtype=np.uint8) for found in texts.values()]
    content = digest(*texts_of, data.targets, data.validation.labels)
    keeper = Keeper(work.scratch / f"teacher-{work.key(teacher, asked, own.temperature, max_length, content)}.safetensors", 0)
    if kept := from_any(work.world, keeper.load()):
        probs, reports = kept[0]["probs"].numpy(), kept[1]["teachers"]
    else:

        def trained(recipe: TrainParams, theirs: Data, name: str) -> tuple[Any, Fitted]:
            return work.fit(teacher, theirs, recipe, name, keep=True)[:2]

        probs, reports = teach(texts, data, max_length, work.labels, recipes, own.temperature, teacher, trained, work.hardware)
        if work.world.first:
            keeper.save({"probs": torch.from_numpy(probs)}, {"teachers": reports})
        work.clear()
    return mixed(data, ids, probs, own.weight), reports
