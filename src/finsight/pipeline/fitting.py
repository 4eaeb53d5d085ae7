"""Fits a model within the memory that there is, so that a killed run goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from finsight.domain.metrics import accuracy, confusion_matrix, macro_f1, nll, softmax
from finsight.errors import ParamsError
from finsight.files import sha256
from finsight.modeling.backbone import load_model
from finsight.modeling.batching import Data
from finsight.modeling.device import Hardware
from finsight.modeling.distributed import World, agreed, from_any, whole
from finsight.modeling.gradients import Gradients
from finsight.modeling.resume import Keeper
from finsight.modeling.stream import Stream
from finsight.modeling.training import Fitted, Observer, Progress, fit
from finsight.params.train import TrainParams

if TYPE_CHECKING:
    from finsight.ports import Backbone

# Keys of a recipe that do not change what comes of it, but through the data and the backbone, which are asked for themselves.
NOT_OF_A_FIT = {"backbone", "teacher", "distillation", "prune", "adapt", "save_every", "stream", "threads", "launch"}

# What a CPU says when memory runs out, and CUDA and its libraries where they do not raise the exception for it.
_FULL = ("not enough memory", "can't allocate memory", "DefaultCPUAllocator", "out of memory", "ALLOC_FAILED")


@dataclass(frozen=True, slots=True)
class Start:
    """A model that a fit begins with in place of the backbone.

    :param make: a new copy of it.
    :param digest: tells it from others.
    :param passes: makes what computes its gradients, where it is no classifier.
    """

    make: Callable[[], Any]
    digest: str
    passes: Callable[..., Gradients] = Gradients


@dataclass(frozen=True)
class Fitter:
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
        kind = (self.hardware.device.type, str(self.hardware.dtype))  # not which of several: all of them look for one state
        return key(backbone.digest, list(self.labels), self.world.size, self.world.sharded, kind, *parts)

    def fit(
        self,
        backbone: Backbone,
        data: Data | Stream,
        params: TrainParams,
        name: str,
        restored: Callable[[list[dict[str, float]]], None] = lambda _: None,
        keep: bool = False,
        start: Start | None = None,
    ) -> tuple[Any, Fitted, TrainParams]:
        """The fitted model, what was measured, and the recipe that fitted into memory.

        :param keep: whether the weights stay on this host, for the next fit that would come out the same.
        :param start: in place of the backbone with a new head.
        """
        make = start.make if start else lambda: fresh(backbone.folder, self.labels, params, self.hardware.device)
        while True:
            asked = params.model_dump(exclude=NOT_OF_A_FIT)
            content = digest(*_learned(data), *data.validation.ids, data.validation.labels)
            state = self.key(backbone, asked, content, *([start.digest] if start else []))
            if not agreed(self.world, state):
                raise ParamsError(
                    "train.launch: the machines differ in data, parameters, code, libraries or precision; bring all of them to one commit, "
                    "and `dvc repro prepare` on each"
                )
            keeper = Keeper(self.scratch / f"state-{state}.safetensors", params.save_every)
            self.kept.append(keeper)
            ended = Keeper(self.scratch / f"fitted-{state}.safetensors", 0)
            if keep and (found := self._again(ended, make)):
                restored(found[1].epochs)
                return *found, params

            def named(progress: Progress) -> None:
                for observe in self.observers:
                    observe(replace(progress, name=name))

            model = make()
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
                    passes=start.passes if start else Gradients,
                )
            except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
                if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and not any(words in str(error) for words in _FULL):
                    raise
                full = error.__class__.__name__
            else:
                model = self._undivided(model, make)
                if keep and self.world.first:
                    ended.save(model.state_dict(), {"epoch": fitted.epoch, "epochs": fitted.epochs})
                return model, fitted, params
            del model  # its memory is needed
            half = params.batch_tokens // 2
            if not params.auto_batch or half < 8:
                raise ParamsError(
                    f"train.batch_tokens: {params.batch_tokens} tokens a batch do not fit into the memory of {self.hardware.device} "
                    f"({full}); set it to {half} and train.accumulation to {2 * params.accumulation}, or train.auto_batch to true"
                )
            params = params.model_copy(update={"batch_tokens": half, "accumulation": 2 * params.accumulation})

    def _again(self, ended: Keeper, make: Callable[[], Any]) -> tuple[Any, Fitted] | None:
        """A fit that came to its end on this host before, or on another that trains with it."""
        found = from_any(self.world, ended.load())
        if not found:
            return None
        weights, notes = found
        model = make()
        model.load_state_dict(weights)
        return model, Fitted(notes["epoch"], notes["epochs"])

    def _undivided(self, model: Any, make: Callable[[], Any]) -> Any:
        """The model with all its weights in this process."""
        if not self.world.sharded:
            return model
        plain = make()
        for mine, divided in zip(plain.parameters(), model.parameters(), strict=True):
            mine.data.copy_(whole(divided.data))
        return plain

    def clear(self) -> None:
        """What was kept is not needed any more."""
        for keeper in self.kept if self.world.first else ():
            keeper.clear()


def fresh(folder: Path, labels: Sequence[str], recipe: TrainParams, device: torch.device) -> Any:
    """A model of a backbone with a new head, from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    return load_model(folder, labels, "eager" if device.type == "cpu" else None, new_head=True, dropout=recipe.dropout)


def key(*parts: object) -> str:
    """A digest of what a result depends on: these, the code that it comes from, the libraries, and how many threads add up."""
    house = Path(__file__).parents[1]
    # Of rows that are held the targets are asked for themselves; those of a stream follow from code.
    named = ("domain/labels", "domain/metrics", "pipeline/distillation", "pipeline/prepared_rows", "pipeline/training_data")
    others = (*(house / f"{name}.py" for name in named), Path(__file__))
    code = [sha256(path) for path in (*sorted((house / "modeling").glob("*.py")), *others)]
    made_with = (torch.__version__, transformers.__version__, torch.get_num_threads())
    return hashlib.sha256(repr((parts, code, made_with)).encode()).hexdigest()[:24]


def _learned(data: Data | Stream) -> list[NDArray[Any]]:
    """What tells training rows, their order and their targets from others; of a stream the recipe says the rest."""
    if isinstance(data, Stream):
        return [np.frombuffer(bytes.fromhex(data.digest), dtype=np.uint8), np.array(data.shuffled)]
    return [*data.train.ids, data.targets, data.weights]


def validation_metrics(logits: NDArray[np.float32], actual: NDArray[np.int64], k: int) -> dict[str, float]:
    """What chooses the epoch: loss (nats, without smoothing), accuracy, macro-F1."""
    probs = softmax(logits)
    matrix = confusion_matrix(actual, probs.argmax(axis=1), k)
    return {"loss": nll(actual, probs), "accuracy": float(accuracy(matrix)), "macro_f1": float(macro_f1(matrix))}


def digest(*arrays: NDArray[Any]) -> str:
    """One SHA-256 of some arrays, in hexadecimal."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
