"""The fine-tuning loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from finsight.errors import ParamsError, StoppedError
from finsight.modeling.batching import Data
from finsight.modeling.device import Hardware
from finsight.modeling.distributed import ALONE, World, add_up, any_of, fill, from_any, local, shard, whole
from finsight.modeling.dropout import cheapen_dropout
from finsight.modeling.epochs import BEGIN, Place, Step
from finsight.modeling.gradients import Gradients, compute_twice
from finsight.modeling.inference import predict
from finsight.modeling.losses import pushed_weights
from finsight.modeling.optimisation import average, parameter_groups, share_of_peak, some_learn, swap, weight_of_last
from finsight.modeling.resume import Keeper
from finsight.modeling.stream import Stream, order

if TYPE_CHECKING:  # pydantic is not on every GPU image
    from finsight.params.train import TrainParams

# Steps between two reports where a report waits for the device.
REPORT_EVERY = 20


@dataclass(frozen=True, slots=True)
class Progress:
    """What a run reports: in an epoch its loss, after each epoch its metrics too.

    :param step: optimiser steps done, of ``steps``; ``epoch`` counts from 1.
    :param rows: training rows done in this epoch.
    :param loss: mean of the epoch so far.
    :param metrics: empty in the middle of an epoch.
    :param name: of a run that is made for another, as a teacher's is.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    rows: int
    loss: float
    metrics: dict[str, float]
    name: str = ""


Observer = Callable[[Progress], None]
Measure = Callable[[NDArray[np.float32], NDArray[np.int64]], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Fitted:
    """The best epoch (from 1) and what was measured after each; the model itself is left holding the best one's weights.

    :param rows: training rows that were learned from, those before a kill left out.
    """

    epoch: int
    epochs: list[dict[str, float]]
    rows: int = field(default=0, compare=False)


def fit(
    model: PreTrainedModel,
    data: Data | Stream,
    recipe: TrainParams,
    hardware: Hardware,
    measure: Measure,
    observers: Sequence[Observer] = (),
    *,
    keeper: Keeper | None = None,
    stop: Callable[[], bool] = lambda: False,
    world: World = ALONE,
    restored: Callable[[list[dict[str, float]]], None] = lambda _: None,
    passes: Callable[..., Gradients] = Gradients,
) -> Fitted:
    """Fine-tune ``model`` in place and leave it at its best epoch by validation macro-F1; at the last one where there are no such rows.

    What is measured and kept is an average of the weights: on a few hundred steps the last weights swing by more than
    the epochs differ.
    Each row weighs the same whatever the size of its batch: the summed loss is divided by the mean number of rows a step.
    Batches and dropout depend on the seed, the epoch and the step only, so that a run that was stopped goes on as if it had not been, and
    two processes do what one does.

    :param data: with a stream, the schedule goes by rows and not by steps, of which nobody knows the number beforehand.
    :param measure: maps logits (n, k) and labels (n,) to metrics, ``macro_f1`` among them.
    :param keeper: holds the state from which a killed run goes on.
    :param restored: is told what was measured before the run was killed, if it goes on.
    :param stop: is asked after each step whether to save the state and end.
    :param passes: makes what computes the gradients.
    :raises StoppedError: when ``stop`` says so.
    :raises ParamsError: when the loss is no number.
    """
    return _Run(model, data, recipe, hardware, keeper, world, passes).fit(measure, observers, stop, restored)


@dataclass
class _Run:
    """What changes while a model is fitted."""

    model: PreTrainedModel
    data: Data | Stream
    recipe: TrainParams
    hardware: Hardware
    keeper: Keeper | None
    world: World
    passes: Callable[..., Gradients]
    step: int = 0
    place: Place = BEGIN
    done: int = 0
    loss: float = 0.0
    rows: int = 0
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best: list[torch.Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        recipe, device = self.recipe, self.hardware.device
        self.model.to(device)
        cheapen_dropout(self.model)
        if recipe.gradient_checkpointing:
            compute_twice(self.model)
        if self.world.sharded:
            shard(self.model, device)
        self.weights = list(self.model.parameters())
        self.averages = [weight.detach().clone() for weight in self.weights]
        some_learn(self.model, recipe)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model, recipe), fused=not self.world.sharded)
        self.gradients = self.passes(self.model, self.data, recipe, self.hardware, self.world.sharded)
        # Accumulation is a multiple of the processes, to which a step's batches go in turn.
        self.order = order(self.data, recipe, recipe.accumulation, self.gradients.widths)

    def fit(
        self,
        measure: Measure,
        observers: Sequence[Observer],
        stop: Callable[[], bool],
        restored: Callable[[list[dict[str, float]]], None],
    ) -> Fitted:
        begun = self._restore()
        restored(self.history)
        for epoch in range(begun, self.recipe.epochs):
            before = self.done
            with closing(self.order.steps(epoch, self.place)) as steps:
                for number, step in enumerate(steps):
                    if not number:
                        self.gradients.begin(epoch, step.batches[0])
                    self._learn(epoch, step)
                    last = self.done == self.order.rows
                    if not last and self.step % REPORT_EVERY and self.hardware.device.type != "cpu":
                        continue  # nothing waits for the device
                    self._report(epoch, observers)
                    if any_of(self.world, stop()):
                        self._save(epoch)
                        raise StoppedError(
                            f"training was stopped after step {self.step} of {self._steps(epoch)}; the same command goes on from there"
                        )
                    if not last and any_of(self.world, self.world.first and self.keeper is not None and self.keeper.due()):
                        self._save(epoch)
            self.rows += self.done - before
            self._end(epoch, measure, observers)
            self.place, self.done = BEGIN, 0
            if self.recipe.patience and epoch + 1 - self.best_epoch >= self.recipe.patience:
                break
        for weight, kept in zip(self.weights, self.best, strict=True):
            fill(weight.data, kept)
        return Fitted(self.best_epoch, self.history, self.rows)

    def _descend(self, epoch: int, step: Step) -> None:
        """The gradients of a step, of all processes."""
        rows_a_step = self.order.rows_a_step(epoch)
        scale = (self.world.size if self.world.sharded else 1) / rows_a_step  # FSDP takes the mean over the processes, we mean the sum
        mine = step.batches[self.world.rank :: self.world.size]
        for turn in range(self.recipe.accumulation // self.world.size):
            batch, weight = (mine[turn], 1.0) if turn < len(mine) else (step.batches[0], 0.0)
            if not weight and not self.world.sharded:
                break  # sharded weights are gathered by all processes together
            # Dropout follows from where the batch stands, not from what was drawn before it.
            at = np.random.SeedSequence([self.recipe.seed, self.step, self.world.rank + turn * self.world.size])
            torch.manual_seed(int(at.generate_state(1, np.uint64)[0] >> 1))
            self.gradients.add(batch, weight, scale)
        learning = [weight for weight in self.weights if weight.requires_grad]
        if not self.world.sharded and self.world.size > 1:
            for parameter in learning:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            add_up(self.world, [parameter.grad for parameter in learning if parameter.grad is not None])

    def _learn(self, epoch: int, step: Step) -> None:
        """One step of the optimiser."""
        self._descend(epoch, step)
        learning = [weight for weight in self.weights if weight.requires_grad]
        if self.recipe.awp:
            total = self.gradients.total.clone()  # what is reported is the loss of the weights themselves
            with pushed_weights(learning, self.recipe.awp):
                self._descend(epoch, step)
            self.gradients.total.copy_(total)
        before, whole_way = self.order.schedule(self.step, epoch, self.done)
        share = share_of_peak(before, whole_way, self.recipe.schedule, self.recipe.warmup_ratio)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * share
        self.gradients.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(learning, self.recipe.max_grad_norm)
        self.gradients.scaler.step(self.optimizer)
        self.gradients.scaler.update()
        self.optimizer.zero_grad(set_to_none=not self.gradients.replayed)
        self.step, self.place, self.done = self.step + 1, step.place, step.rows
        moving = [(local(a), local(w.detach())) for a, w in zip(self.averages, self.weights, strict=True) if w.requires_grad]
        now, _ = self.order.schedule(self.step, epoch, self.done)
        average([a for a, _ in moving], [w for _, w in moving], weight_of_last(now, whole_way, self.recipe, now - before))

    def _report(self, epoch: int, observers: Sequence[Observer]) -> None:
        """Tell the observers the loss so far."""
        total = self.gradients.total.clone()
        add_up(self.world, [total])
        self.loss = total.item() / self.done
        if not math.isfinite(self.loss):
            raise ParamsError(f"train.lr: {self.recipe.lr:g} makes the loss {self.loss} at step {self.step}; lower it")
        self._tell(observers, epoch, {})

    def _tell(self, observers: Sequence[Observer], epoch: int, metrics: dict[str, float]) -> None:
        for observe in observers if self.world.first else ():
            observe(Progress(epoch + 1, self.recipe.epochs, self.step, self._steps(epoch), self.done, self.loss, metrics))

    def _steps(self, epoch: int) -> int:
        return self.order.in_all(self.step, epoch, self.done)

    def _end(self, epoch: int, measure: Measure, observers: Sequence[Observer]) -> None:
        """Measure the averaged weights on validation, and keep them if they are the best so far."""
        data, tokens = self.data, 4 * self.recipe.batch_tokens
        swap(self.averages, self.weights)
        metrics: dict[str, float] = {}
        if len(data.validation):
            logits = predict(self.model, data.validation.ids, data.pad_id, tokens, self.hardware)
            if not np.isfinite(logits).all():
                raise ParamsError(f"train.lr: {self.recipe.lr:g} makes the model's answers infinite in epoch {epoch + 1}; lower it")
            metrics = measure(logits, data.validation.labels)
        self.gradients.total.zero_()
        self.history.append({"epoch": epoch + 1, "train_loss": self.loss} | {f"validation_{k}": v for k, v in metrics.items()})
        if not self.best or not metrics or metrics["macro_f1"] > self.history[self.best_epoch - 1]["validation_macro_f1"]:
            self.best_epoch, self.best = epoch + 1, [whole(weight.detach()).to("cpu", copy=True) for weight in self.weights]
        swap(self.averages, self.weights)
        self._tell(observers, epoch, self.history[-1])

    def _tensors(self) -> dict[str, list[torch.Tensor]]:
        """All tensors of the state that are filled in place, by kind; moments where the optimiser has them."""
        states = [self.optimizer.state[weight] for weight in self.weights if weight in self.optimizer.state]
        moments = {key: [state[key] for state in states] for key in ("step", "exp_avg", "exp_avg_sq")}
        return {"weights": [w.data for w in self.weights], "averages": self.averages, "total": [self.gradients.total], **moments}

    def _save(self, epoch: int) -> None:
        if not self.keeper:
            return
        add_up(self.world, [self.gradients.total])  # the first process's sum goes on for all
        tensors = {f"{kind}.{i}": whole(tensor) for kind, found in self._tensors().items() for i, tensor in enumerate(found)}
        if not self.world.first:
            self.gradients.total.zero_()
            return
        stepped = [i for i, weight in enumerate(self.weights) if weight in self.optimizer.state]
        notes = {
            "epoch": epoch,
            "step": self.step,
            "place": self.place,
            "done": self.done,
            "best_epoch": self.best_epoch,
            "history": self.history,
            "loss": self.loss,
            "stepped": stepped,
        }
        kept = {f"best.{i}": tensor for i, tensor in enumerate(self.best)}
        self.keeper.save({**tensors, **kept}, {**notes, "scaler": self.gradients.scaler.state_dict()})

    def _restore(self) -> int:
        """Go on where a killed run stopped, if there was one; the epoch to begin with (from 0)."""
        found = from_any(self.world, self.keeper.load() if self.keeper else None)
        if not found:
            return 0
        tensors, notes = found
        for i in notes["stepped"]:
            weight = self.weights[i]
            zeros = {key: torch.zeros_like(weight.data) for key in ("exp_avg", "exp_avg_sq")}
            self.optimizer.state[weight] = {"step": torch.zeros((), device=weight.device), **zeros}
        for kind, mine in self._tensors().items():
            for i, tensor in enumerate(mine):
                fill(tensor, tensors[f"{kind}.{i}"])
        if not self.world.first:
            self.gradients.total.zero_()
        self.step, self.loss, self.done = notes["step"], notes["loss"], notes["done"]
        self.place = (notes["place"][0], notes["place"][1])
        self.best_epoch, self.history = notes["best_epoch"], notes["history"]
        self.best = [tensors[f"best.{i}"] for i in range(len(self.weights))] if self.best_epoch else []
        self.gradients.scaler.load_state_dict(notes["scaler"])
        return int(notes["epoch"])
