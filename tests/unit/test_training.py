"""The loop on a tiny random model: it learns, keeps the best epoch, and repeats itself exactly."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from conftest import LABELS
from finsight.domain.labels import confidence, targets
from finsight.errors import ParamsError
from finsight.modeling.backbone import load_model
from finsight.modeling.batching import Rows
from finsight.modeling.device import deterministic, resolve_device, resolve_precision
from finsight.modeling.training import Fitted, Progress, fit, linear_schedule, moving_average, parameter_groups, predict
from finsight.pipeline.train import validation_metrics

RECIPE: dict[str, Any] = {
    "epochs": 5,
    "lr": 2e-3,
    "head_lr_multiplier": 2.0,
    "layer_decay": 0.5,
    "batch_tokens": 256,
    "weight_decay": 0.01,
    "warmup_ratio": 0.1,
    "label_smoothing": 0.0,
    "max_grad_norm": 1.0,
    "ema": 0.9,
    "seed": 1,
}
CPU = torch.device("cpu")


def three_labels(logits: np.ndarray, actual: np.ndarray) -> dict[str, float]:
    return validation_metrics(logits, actual, 3)


def toy(n: int, seed: int) -> Rows:
    """Rows whose label is told by their second token."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    ids = [np.array([2, 100 + label, *rng.integers(200, 400, rng.integers(1, 9)), 3], dtype=np.int32) for label in labels]
    return Rows(ids, labels)


def run(backbone: Path, **changes: Any) -> tuple[Any, Fitted, list[Progress]]:
    seen: list[Progress] = []
    recipe = SimpleNamespace(**RECIPE | changes)
    with deterministic(recipe.seed):
        model = load_model(backbone, LABELS)
        rows = toy(900, 1)
        goal = targets(rows.labels, 3).astype(np.float32)
        fitted = fit(model, rows, goal, toy(60, 2), recipe, 0, CPU, torch.float32, three_labels, [seen.append])  # type: ignore[arg-type]
    return model, fitted, seen


def test_it_learns_and_keeps_the_best_epoch(tiny_backbone: Path) -> None:
    model, fitted, seen = run(tiny_backbone)
    f1 = [epoch["validation_macro_f1"] for epoch in fitted.epochs]
    assert f1[fitted.epoch - 1] == max(f1) > 0.9
    validation = toy(60, 2)
    kept = validation_metrics(predict(model, validation.ids, 0, 4 * 256, CPU, torch.float32), validation.labels, 3)
    assert kept["macro_f1"] == max(f1)
    assert [p.step for p in seen if not p.metrics] == list(range(1, seen[-1].steps + 1))
    assert [p.epoch for p in seen if p.metrics] == [1, 2, 3, 4, 5]
    assert all(p.rows == 900 for p in seen if p.metrics)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tiny_backbone: Path) -> None:
    def weights(**changes: Any) -> bytes:
        model, _, _ = run(tiny_backbone, epochs=1, **changes)
        return b"".join(p.detach().numpy().tobytes() for p in model.parameters())

    assert weights() == weights()
    assert weights() != weights(seed=2)


def test_predictions_keep_the_order_of_rows(tiny_backbone: Path) -> None:
    model = load_model(tiny_backbone, LABELS)
    rows = toy(50, 3).ids
    together = predict(model, rows, 0, 200, CPU, torch.float32)
    alone = np.concatenate([predict(model, [row], 0, 200, CPU, torch.float32) for row in rows])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_rate_rises_then_falls_to_zero() -> None:
    rates = [linear_schedule(step, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[99] == pytest.approx(1 / 90)
    assert linear_schedule(100, 100, 0.1) == 0.0
    assert linear_schedule(0, 100, 0.0) == 1.0


def test_layers_learn_slower_the_deeper_they_lie(tiny_backbone: Path) -> None:
    model = load_model(tiny_backbone, LABELS)
    groups = parameter_groups(model, SimpleNamespace(**RECIPE))  # type: ignore[arg-type]
    rate_of = {id(p): g["lr"] for g in groups for p in g["params"]}  # type: ignore[attr-defined]
    decay_of = {id(p): g["weight_decay"] for g in groups for p in g["params"]}  # type: ignore[attr-defined]
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
    moving_average(0.9)(averages, weights, 2)  # early: 1 - 3 / 12
    assert averages[0].tolist() == pytest.approx([0.75, 0.75])
    moving_average(0.9)(averages, weights, 1000)  # late: 0.1 of what is left
    assert averages[0].tolist() == pytest.approx([0.775, 0.775])
    moving_average(0.0)(averages, weights, 1000)
    assert averages[0].tolist() == [1.0, 1.0]


def test_a_loss_that_is_no_number_names_the_rate(tiny_backbone: Path) -> None:
    with pytest.raises(ParamsError, match=r"train\.lr: 1e\+30 makes the loss"):
        run(tiny_backbone, lr=1e30, max_grad_norm=1e30)


def test_confidence_is_the_middle_between_a_level_and_the_next() -> None:
    assert [confidence(a) for a in (None, 100, 75, 66, 50)] == [1.0, 1.0, 0.875, 0.705, 0.58]


def test_targets_spread_what_the_label_does_not_deserve() -> None:
    labels = np.array([0, 2, 1])
    np.testing.assert_array_equal(targets(labels, 3), np.eye(3)[labels])
    np.testing.assert_allclose(targets(labels, 3, [75, None, 50]), [[0.875, 0.0625, 0.0625], [0, 0, 1], [0.21, 0.58, 0.21]])


def test_bf16_learns_too(tiny_backbone: Path) -> None:
    with deterministic(1):
        model = load_model(tiny_backbone, LABELS)
        rows = toy(900, 1)
        goal = targets(rows.labels, 3).astype(np.float32)
        recipe = SimpleNamespace(**RECIPE)
        fitted = fit(model, rows, goal, toy(60, 2), recipe, 0, CPU, torch.bfloat16, three_labels)  # type: ignore[arg-type]
    assert max(epoch["validation_macro_f1"] for epoch in fitted.epochs) > 0.9
    assert next(model.parameters()).dtype == torch.float32
