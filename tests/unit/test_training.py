"""The loop on a tiny random model: it learns, keeps the best epoch, and repeats itself exactly."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from conftest import LABELS, shipped_params
from finsight.domain.labels import confidence, targets
from finsight.errors import ParamsError, StoppedError
from finsight.modeling import gradients, replay
from finsight.modeling.backbone import load_model
from finsight.modeling.batching import Data, Rows
from finsight.modeling.device import Hardware, deterministic, resolve_device, resolve_precision
from finsight.modeling.distributed import ALONE
from finsight.modeling.dropout import CheapDropout, cheapen_dropout
from finsight.modeling.frozen import FrozenLayers
from finsight.modeling.inference import predict
from finsight.modeling.losses import Push, hooked, pushed_weights, soft_cross_entropy
from finsight.modeling.optimisation import average, parameter_groups, share_of_peak, weight_of_last
from finsight.modeling.replay import Replay
from finsight.modeling.resume import Keeper
from finsight.modeling.training import Fitted, Progress, fit
from finsight.params.train import TrainParams
from finsight.pipeline.fitting import Fitter, validation_metrics
from finsight.ports import Backbone
from trainings import written_weights

SHIPPED = YAML(typ="safe").load(shipped_params())["train"]
RECIPE: dict[str, Any] = {
    **SHIPPED,
    "epochs": 5,
    "lr": 2e-3,
    "head_lr_multiplier": 2.0,
    "layer_decay": 0.5,
    "batch_tokens": 256,
    "label_smoothing": 0.0,
    "ema": 0.9,
    "seed": 1,
}
CPU = torch.device("cpu")
HARDWARE = Hardware(CPU)


class KilledError(Exception):
    pass


def three_labels(logits: np.ndarray, actual: np.ndarray) -> dict[str, float]:
    return validation_metrics(logits, actual, 3)


def toy(n: int, seed: int) -> Rows:
    """Rows whose label is told by their second token."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    ids = [np.array([2, 100 + label, *rng.integers(200, 400, rng.integers(1, 9)), 3], dtype=np.int32) for label in labels]
    return Rows(ids, labels)


def recipe_of(**changes: Any) -> TrainParams:
    return TrainParams.model_validate(RECIPE | changes)


def toy_data(rows: Rows | None = None) -> Data:
    rows = rows or toy(900, 1)
    return Data(rows, targets(rows.labels, 3).astype(np.float32), np.ones(len(rows), dtype=np.float32), toy(60, 2), 0)


def run(
    backbone: Path, data: Data | None = None, hardware: Hardware = HARDWARE, fitting: dict[str, Any] | None = None, **changes: Any
) -> tuple[Any, Fitted, list[Progress]]:
    seen: list[Progress] = []
    recipe = recipe_of(**changes)
    with deterministic(recipe.seed):
        model = load_model(backbone, LABELS, new_head=True, dropout=recipe.dropout)
        fitted = fit(model, data or toy_data(), recipe, hardware, three_labels, [seen.append], **(fitting or {}))
    return model, fitted, seen


def weights_of(model: Any) -> bytes:
    return b"".join(p.detach().numpy().tobytes() for p in model.parameters())


def test_it_learns_and_keeps_the_best_epoch(tiny_backbone: Path) -> None:
    model, fitted, seen = run(tiny_backbone)
    f1 = [epoch["validation_macro_f1"] for epoch in fitted.epochs]
    assert f1[fitted.epoch - 1] == max(f1) > 0.9
    validation = toy(60, 2)
    kept = validation_metrics(predict(model, validation.ids, 0, 4 * 256, HARDWARE), validation.labels, 3)
    assert kept["macro_f1"] == max(f1)
    assert [p.step for p in seen if not p.metrics] == list(range(1, seen[-1].steps + 1))
    assert [p.epoch for p in seen if p.metrics] == [1, 2, 3, 4, 5]
    assert all(p.rows == 900 for p in seen if p.metrics)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tiny_backbone: Path) -> None:
    def weights(**changes: Any) -> bytes:
        return weights_of(run(tiny_backbone, epochs=1, **changes)[0])

    assert weights() == weights()
    assert weights() != weights(seed=2)


def test_predictions_keep_the_order_of_rows(tiny_backbone: Path) -> None:
    model = load_model(tiny_backbone, LABELS)
    rows = toy(50, 3).ids
    together = predict(model, rows, 0, 200, HARDWARE)
    alone = np.concatenate([predict(model, [row], 0, 200, HARDWARE) for row in rows])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_rate_rises_then_falls_to_zero() -> None:
    rates = [share_of_peak(step, 100, "linear", 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[99] == pytest.approx(1 / 90)
    assert share_of_peak(100, 100, "linear", 0.1) == 0.0
    assert share_of_peak(0, 100, "linear", 0.0) == 1.0
    assert share_of_peak(55, 100, "cosine", 0.1) == pytest.approx(0.5)
    assert share_of_peak(100, 100, "cosine", 0.1) == pytest.approx(0.0)
    assert share_of_peak(99, 100, "constant", 0.1) == 1.0


def test_layers_learn_slower_the_deeper_they_lie(tiny_backbone: Path) -> None:
    model = load_model(tiny_backbone, LABELS)
    groups = parameter_groups(model, recipe_of())
    rate_of = {id(p): g["lr"] for g in groups for p in g["params"]}
    decay_of = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    rates = {name: rate_of[id(p)] for name, p in model.named_parameters()}
    assert len(rates) == len(list(model.parameters()))
    assert rates["classifier.weight"] == pytest.approx(0.004)
    assert rates["bert.pooler.dense.weight"] == pytest.approx(0.002)
    assert rates["bert.encoder.layer.1.output.dense.weight"] == pytest.approx(0.002)
    assert rates["bert.encoder.layer.0.output.dense.weight"] == pytest.approx(0.001)
    assert rates["bert.embeddings.word_embeddings.weight"] == pytest.approx(0.0005)
    parameters = dict(model.named_parameters())
    assert decay_of[id(parameters["classifier.bias"])] == 0
    assert decay_of[id(parameters["classifier.weight"])] == 0.01


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused() -> None:
    assert resolve_device("auto") == CPU
    with pytest.raises(ParamsError, match=r"train\.device: got cuda, but torch sees no GPU"):
        resolve_device("cuda")


@pytest.mark.parametrize(("flags", "expected"), [("fpu avx512_bf16", torch.float32), ("fpu amx_bf16 amx_tile", torch.bfloat16)])
def test_precision_auto_takes_bf16_where_the_cpu_has_tiles_for_it(
    flags: str, expected: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    monkeypatch.setattr("finsight.modeling.device.CPUINFO", tmp_path / "cpuinfo")
    assert resolve_precision("auto", CPU) == expected
    assert resolve_precision("fp32", CPU) == torch.float32
    assert resolve_precision("bf16", CPU) == torch.bfloat16


def test_the_average_follows_the_weights_and_a_decay_of_zero_is_the_last_ones() -> None:
    averages, weights = [torch.zeros(2)], [torch.ones(2)]
    average(averages, weights, weight_of_last(2, 2000, recipe_of(ema=0.9)))  # early: 1 - 3 / 12
    assert averages[0].tolist() == pytest.approx([0.75, 0.75])
    average(averages, weights, weight_of_last(1000, 2000, recipe_of(ema=0.9)))  # late: 0.1 of what is left
    assert averages[0].tolist() == pytest.approx([0.775, 0.775])
    average(averages, weights, weight_of_last(1000, 2000, recipe_of(ema=0.0)))
    assert averages[0].tolist() == [1.0, 1.0]


def test_swa_is_the_mean_of_the_weights_of_the_last_steps() -> None:
    averages, means = [torch.zeros(1)], []
    for step, weight in enumerate([8.0, 4.0, 2.0, 6.0, 1.0], start=1):
        average(averages, [torch.tensor([weight])], weight_of_last(step, 5, recipe_of(swa=0.6)))
        means.append(averages[0].item())
    assert means == pytest.approx([8, 4, 2, (2 + 6) / 2, (2 + 6 + 1) / 3])


def test_what_swa_keeps_is_the_mean_of_what_the_optimiser_wrote(tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = written_weights(monkeypatch)
    model, _, _ = run(tiny_backbone, epochs=1, swa=0.5)
    torch.testing.assert_close(next(model.parameters()).detach(), torch.stack(written[len(written) // 2 :]).mean(0))


def test_a_loss_that_is_no_number_names_the_rate(tiny_backbone: Path) -> None:
    with pytest.raises(ParamsError, match=r"train\.lr: 1e\+30 makes the loss"):
        run(tiny_backbone, lr=1e30, max_grad_norm=1e30)


def test_answers_that_are_no_number_name_the_rate(tiny_backbone: Path) -> None:
    """One step an epoch: the loss is looked at before it, the answers after it."""
    with pytest.raises(ParamsError, match=r"train\.lr: 1e\+30 makes the model's answers infinite in epoch 1; lower it"):
        run(tiny_backbone, lr=1e30, max_grad_norm=1e30, batch_tokens=1_000_000, ema=0.0)


def test_all_processes_look_for_one_state(tiny_backbone: Path) -> None:
    backbone = Backbone("tiny", tiny_backbone, "0" * 64, "MIT")

    def key(device: str) -> str:
        hardware = Hardware(torch.device(device))
        return Fitter(LABELS, hardware, tiny_backbone, ALONE, [], lambda: False).key(backbone)

    assert key("cuda:0") == key("cuda:1") != key("cpu")


def test_confidence_is_the_middle_between_a_level_and_the_next() -> None:
    assert [confidence(a) for a in (None, 100, 75, 66, 50)] == [1.0, 1.0, 0.875, 0.705, 0.58]


def test_targets_spread_what_the_label_does_not_deserve() -> None:
    labels = np.array([0, 2, 1])
    np.testing.assert_array_equal(targets(labels, 3), np.eye(3)[labels])
    np.testing.assert_allclose(targets(labels, 3, [75, None, 50]), [[0.875, 0.0625, 0.0625], [0, 0, 1], [0.21, 0.58, 0.21]])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_the_bits_learn_too(tiny_backbone: Path, dtype: torch.dtype) -> None:
    model, fitted, _ = run(tiny_backbone, hardware=Hardware(CPU, dtype))
    assert max(epoch["validation_macro_f1"] for epoch in fitted.epochs) > 0.9
    assert next(model.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "cosine"},
        {"accumulation": 2, "lr": 4e-3},
        {"gradient_checkpointing": True},
        {"dropout": 0.3},
        {"r_drop": 0.5},
        {"adversarial": 0.01, "dropout": 0.0},
        {"frozen_layers": 2, "lr": 8e-3},
        {"frozen_layers": 2, "unfreeze_every": 1},
        pytest.param({"focal": 2.0, "lr": 4e-3}, marks=pytest.mark.long),
        pytest.param({"swa": 0.5}, marks=pytest.mark.long),
        {"awp": 0.002},
    ],
)
def test_each_part_of_a_recipe_learns(tiny_backbone: Path, changes: dict[str, Any]) -> None:
    _, fitted, _ = run(tiny_backbone, **changes)
    assert max(epoch["validation_macro_f1"] for epoch in fitted.epochs) > 0.9


def test_gradient_checkpointing_changes_nothing_but_memory(tiny_backbone: Path) -> None:
    plain, saved = (run(tiny_backbone, epochs=1, gradient_checkpointing=on)[0] for on in (False, True))
    for a, b in zip(plain.parameters(), saved.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("awp", [0.0, 0.05])
def test_accumulated_batches_are_a_step_of_their_sum(tiny_backbone: Path, awp: float) -> None:
    """Of one batch of all rows, and of two halves, the gradients are equal: rows weigh the same wherever they stand."""
    rows = toy(64, 3)
    pairs = ((1024, 1), (352, 3))
    models = [run(tiny_backbone, toy_data(rows), epochs=2, dropout=0.0, batch_tokens=b, accumulation=n, awp=awp)[0] for b, n in pairs]
    for a, b in zip(*(m.parameters() for m in models), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-3)


def test_frozen_layers_stay_and_their_kept_output_changes_nothing(tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(load_model(tiny_backbone, LABELS).named_parameters())
    kept = run(tiny_backbone, epochs=2, frozen_layers=2, dropout=0.0)[0]
    for name, parameter in kept.named_parameters():
        still = "embeddings" in name or ".layer.0." in name
        assert torch.equal(parameter, before[name]) == still, name
    monkeypatch.setattr("finsight.modeling.frozen.MOST_BYTES", 0)
    computed = run(tiny_backbone, epochs=2, frozen_layers=2, dropout=0.0)[0]
    monkeypatch.setattr(FrozenLayers, "fits", lambda *_: False)
    whole = run(tiny_backbone, epochs=2, frozen_layers=2, dropout=0.0)[0]
    for a, b, c in zip(kept.parameters(), computed.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(a, c, atol=1e-5, rtol=1e-4)


def test_more_frozen_layers_than_there_are_is_one_line(tiny_backbone: Path) -> None:
    with pytest.raises(ParamsError, match=r"train\.frozen_layers .*: got 3, expected less than 3, the levels of this backbone"):
        run(tiny_backbone, frozen_layers=3)


def test_training_ends_when_nothing_gets_better(tiny_backbone: Path) -> None:
    _, fitted, _ = run(tiny_backbone, epochs=9, patience=2, lr=1e-9)
    assert (fitted.epoch, len(fitted.epochs)) == (1, 3)


def test_a_push_raises_the_loss_by_a_step_of_the_stated_length(tiny_backbone: Path) -> None:
    model = load_model(tiny_backbone, LABELS, new_head=True).eval()
    tokens = torch.tensor([[2, 101, 300, 3], [2, 102, 301, 3]])
    goal, weights = torch.eye(3)[:2], torch.ones(2)
    outputs = []

    def loss() -> torch.Tensor:
        return soft_cross_entropy(model(input_ids=tokens).logits, goal, weights)

    push = Push(model, 0.5)
    with push.watched():
        before = loss()
        before.backward()
    with push.pushed(), hooked(model.get_input_embeddings(), lambda _, __, output: outputs.append(output.detach())):
        assert loss() > before
    steps = outputs[0] - model.get_input_embeddings()(tokens)
    torch.testing.assert_close(steps.flatten(1).norm(dim=1), torch.full((2,), 0.5))


def test_weights_are_pushed_by_a_share_of_their_norm_and_come_back() -> None:
    matrix, still, vector = (torch.nn.Parameter(torch.tensor(x)) for x in ([[3.0, 4.0]], [[1.0, 1.0]], [1.0, 2.0]))
    matrix.grad, still.grad, vector.grad = torch.tensor([[0.0, 2.0]]), torch.zeros(1, 2), torch.ones(2)
    with pytest.raises(KilledError), pushed_weights([matrix, still, vector], 0.1):
        torch.testing.assert_close(matrix.detach(), torch.tensor([[3.0, 4.5]]))  # a tenth of the norm, which is 5
        assert still.tolist() == [[1.0, 1.0]]
        assert vector.tolist() == [1.0, 2.0], "vectors stay"
        assert [p.grad.abs().sum().item() for p in (matrix, still, vector) if p.grad is not None] == [0, 0, 0]
        raise KilledError
    assert matrix.tolist() == [[3.0, 4.0]]


def test_awp_takes_the_steps_gradient_where_the_loss_is_higher_and_reports_the_plain_loss(
    tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One batch a step, so that the second pass is that of the first step's batch under pushed weights."""
    losses: list[float] = []

    def seen(*args: Any) -> torch.Tensor:
        loss = soft_cross_entropy(*args)
        losses.append(loss.item())
        return loss

    monkeypatch.setattr(gradients, "soft_cross_entropy", seen)
    data, changes = toy_data(toy(60, 1)), {"epochs": 1, "batch_tokens": 4096}
    plain, fitted, _ = run(tiny_backbone, data, **changes)
    pushed, again, _ = run(tiny_backbone, data, awp=0.02, **changes)
    assert losses[0] == losses[1], "the first pass is the plain one, with the same dropout"
    assert losses[2] > losses[1]
    assert again.epochs[0]["train_loss"] == fitted.epochs[0]["train_loss"]
    assert weights_of(pushed) != weights_of(plain)


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_pushed_weights_learn_with_half_the_bits_too(tiny_backbone: Path, dtype: torch.dtype) -> None:
    _, fitted, _ = run(tiny_backbone, hardware=Hardware(CPU, dtype), awp=0.002)
    assert max(epoch["validation_macro_f1"] for epoch in fitted.epochs) > 0.9


def test_the_loss_is_cross_entropy_and_r_drop_adds_half_the_divergences() -> None:
    logits, target, weights = torch.randn(6, 3), torch.softmax(torch.randn(6, 3), 1), torch.rand(6)
    reference = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(soft_cross_entropy(logits, target, weights), (reference * weights).sum())
    p, q = logits[:3].log_softmax(1), logits[3:].log_softmax(1)
    kl = torch.nn.functional.kl_div
    both = (kl(q, p, log_target=True, reduction="none") + kl(p, q, log_target=True, reduction="none")).sum(1)
    passes = torch.nn.functional.cross_entropy(logits, target[:3].repeat(2, 1), reduction="none").view(2, 3).mean(0)
    torch.testing.assert_close(soft_cross_entropy(logits, target[:3], torch.ones(3), 0.7), (passes + 0.7 * both / 2).sum())


def test_focal_loss_takes_from_what_is_known_already() -> None:
    """By hand: of .5, .25, .25 the first term is ln 2, times .5² where γ is 2; half of each of two labels adds the second, ln 4 · .75²."""
    logits, sure = torch.tensor([[0.5, 0.25, 0.25]]).log(), torch.tensor([[60.0, 0.0, 0.0]], requires_grad=True)
    one, ln2 = torch.ones(1), np.log(2)
    assert soft_cross_entropy(logits, torch.eye(3)[:1], one, focal=2.0).item() == pytest.approx(0.25 * ln2)
    assert soft_cross_entropy(logits, torch.eye(3)[:1], one, focal=1.0).item() == pytest.approx(0.5 * ln2)
    halves = torch.tensor([[0.5, 0.5, 0.0]])
    assert soft_cross_entropy(logits, halves, one, focal=2.0).item() == pytest.approx(0.5 * 0.25 * ln2 + 0.5 * 0.5625 * 2 * ln2)
    soft_cross_entropy(sure, torch.eye(3)[:1], one, focal=0.5).backward()
    assert sure.grad is not None
    assert torch.isfinite(sure.grad).all(), "a row that is known for certain"


def test_cheap_dropout_drops_its_share_and_keeps_the_mean() -> None:
    layer = torch.nn.Dropout(0.1)
    cheapen_dropout(layer)
    torch.manual_seed(3)
    x = torch.ones(1001, 997, requires_grad=True)
    out = layer(x)
    assert type(layer) is CheapDropout
    assert (out == 0).float().mean().item() == pytest.approx(0.1, abs=0.002)
    assert out.mean().item() == pytest.approx(1.0, abs=0.002)
    assert torch.unique(out).tolist() == pytest.approx([0.0, 1 / 0.9], rel=1e-3)
    for neighbour in (1, 2, 3, 4):  # values of one draw are independent
        dropped = (out.flatten() == 0).float()
        both = (dropped[neighbour:] * dropped[:-neighbour]).mean().item()
        assert both == pytest.approx(0.01, abs=0.001)
    out.sum().backward()
    torch.testing.assert_close(x.grad, out.detach())
    torch.manual_seed(3)
    assert torch.equal(layer(x), out)
    assert torch.equal(layer.eval()(x), x)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"frozen_layers": 2, "unfreeze_every": 2},
        {"accumulation": 2},
        pytest.param({"swa": 0.5, "awp": 0.01, "focal": 1.0}, marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("at", [1, 7, 40])
def test_a_killed_run_goes_on_to_the_same_weights(tiny_backbone: Path, tmp_path: Path, at: int, changes: dict[str, Any]) -> None:
    data = toy_data(toy(300, 1))
    whole, expected, _ = run(tiny_backbone, data, epochs=3, **changes)

    def keeper() -> Keeper:
        return Keeper(tmp_path / "state.safetensors", 0.0)

    def kill(progress: Progress) -> None:
        if progress.step == at and not progress.metrics:
            raise KilledError

    with deterministic(1), contextlib.suppress(KilledError):
        model = load_model(tiny_backbone, LABELS, new_head=True)
        fit(model, data, recipe_of(epochs=3, **changes), HARDWARE, three_labels, [kill], keeper=keeper())
    before: list[dict[str, float]] = []
    resumed, fitted, seen = run(tiny_backbone, data, fitting={"keeper": keeper(), "restored": before.extend}, epochs=3, **changes)
    assert weights_of(resumed) == weights_of(whole)
    assert fitted == expected
    assert fitted.epochs[: len(before)] == before
    assert seen[0].step == min(at, seen[-1].steps) if at > 1 else seen[0].step == 1


def test_a_stopped_run_keeps_its_state_and_says_where_it_was(tiny_backbone: Path, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    seen: list[Progress] = []
    whole, _, _ = run(tiny_backbone, epochs=2)
    with deterministic(1), pytest.raises(StoppedError, match=r"training was stopped after step 5 of \d+; the same command goes on"):
        model = load_model(tiny_backbone, LABELS, new_head=True)
        keeper = Keeper(path, 1e9)
        fit(model, toy_data(), recipe_of(epochs=2), HARDWARE, three_labels, [seen.append], keeper=keeper, stop=lambda: len(seen) == 5)
    resumed, _, again = run(tiny_backbone, fitting={"keeper": Keeper(path, 1e9)}, epochs=2)
    assert again[0].step == 6
    assert weights_of(resumed) == weights_of(whole)


def test_a_damaged_state_is_no_state(tiny_backbone: Path, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    path.write_bytes(b"not safetensors")
    assert Keeper(path, 0.0).load() is None


def test_recorded_passes_learn_what_plain_ones_do(tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done around a recording, which itself needs a GPU (test_gpu.py): here it plays by running."""
    plain, fitted, _ = run(tiny_backbone, dropout=0.0)
    played: list[int] = []

    def record(self: Replay, own: Sequence[torch.Tensor]) -> Callable[[], None]:
        def play() -> None:
            played.append(len(own[0]))
            self._passes(*own)

        return play

    monkeypatch.setattr(Replay, "record", record)
    monkeypatch.setattr(replay, "MULTIPLE", 1)
    monkeypatch.setattr(gradients, "MULTIPLE", 1)
    monkeypatch.setattr(gradients, "recordable", lambda *_: True)
    recorded, again, _ = run(tiny_backbone, dropout=0.0)
    assert len(played) > 20
    assert len(set(played)) <= 8, "as many rows as a width has, whatever the batch"
    for mine, theirs in zip(recorded.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-3)
    assert again.epochs[-1]["train_loss"] == pytest.approx(fitted.epochs[-1]["train_loss"], rel=1e-3)
