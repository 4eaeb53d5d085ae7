"""Training on a GPU, where there is one: recorded passes learn what plain ones do, in each family and number format."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_families import FAMILIES, family
from test_training import recipe_of, three_labels, toy, toy_data

from conftest import LABELS
from finsight.errors import ParamsError
from finsight.modeling.backbone import load_model
from finsight.modeling.device import DTYPES, Hardware, deterministic
from finsight.modeling.distributed import ALONE
from finsight.modeling.replay import RECORDED, Replay
from finsight.modeling.training import fit
from finsight.pipeline.fitting import Fitter
from finsight.ports import Backbone

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
__all__ = ["family"]  # the fixture

GPU = Hardware(torch.device("cuda"), torch.bfloat16)


def weights(family: Path, hardware: Hardware = GPU, strict: bool = True, **changes: Any) -> tuple[dict[str, torch.Tensor], float]:
    """What a training leaves, and its macro-F1."""
    with deterministic(1, threads=1, strict=strict):
        model = load_model(family, LABELS, None, new_head=True)
        fitted = fit(model, toy_data(toy(600, 1)), recipe_of(**{"epochs": 4, "lr": 3e-3} | changes), hardware, three_labels)
    return {name: w.detach().cpu() for name, w in model.state_dict().items()}, fitted.epochs[-1]["validation_macro_f1"]


def apart(these: dict[str, torch.Tensor], those: dict[str, torch.Tensor]) -> float:
    """The largest difference of two models' weights."""
    return max(float((w.float() - those[name].float()).abs().max()) for name, w in these.items())


@pytest.mark.parametrize("family", [name for name, config in FAMILIES.items() if config.model_type in RECORDED], indirect=True)
def test_recorded_passes_learn_what_plain_ones_do(family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded, _ = weights(family)
    monkeypatch.setattr(Replay, "record", lambda self, own: lambda: self._passes(*own))
    plain, _ = weights(family)
    found = apart(recorded, plain)
    print(f"\n{family.name}: recorded and plain differ by {found:.2e}")
    assert found < 1e-4


@pytest.mark.parametrize("family", ["bert"], indirect=True)
@pytest.mark.parametrize("changes", [{"r_drop": 0.5}, {"accumulation": 2}, {"frozen_layers": 2, "unfreeze_every": 2}], ids=str)
def test_recorded_passes_keep_to_the_recipe(family: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    recorded, _ = weights(family, **changes)
    monkeypatch.setattr(Replay, "record", lambda self, own: lambda: self._passes(*own))
    assert apart(recorded, weights(family, **changes)[0]) < 1e-4


@pytest.mark.parametrize("family", ["bert"], indirect=True)
def test_strict_runs_are_equal(family: Path) -> None:
    once, again = weights(family)[0], weights(family)[0]
    print(f"\nstrict runs differ by {apart(once, again):.2e}")
    assert apart(once, again) == 0


@pytest.mark.parametrize("family", ["bert", "mpnet", "deberta-v3"], indirect=True)
@pytest.mark.parametrize("precision", list(DTYPES))
def test_each_number_format_learns(family: Path, precision: str) -> None:
    _, score = weights(family, Hardware(GPU.device, DTYPES[precision]), strict=False, epochs=8)
    assert score > 0.85


@pytest.mark.parametrize("family", ["bert"], indirect=True)
def test_what_learns_on_a_gpu_answers_the_same_on_a_cpu(family: Path, tmp_path: Path) -> None:
    from finsight.modeling.checkpoint import load_checkpoint, save_checkpoint
    from finsight.modeling.inference import predict

    model = load_model(family, LABELS, None, new_head=True)
    fit(model, toy_data(), recipe_of(), GPU, three_labels)
    rows = toy(40, 5).ids
    (tmp_path / "tokenizer").mkdir()
    there = predict(model, rows, 0, 500, Hardware(GPU.device))
    save_checkpoint(model, tmp_path / "tokenizer", tmp_path / "checkpoint")
    here = predict(load_checkpoint(tmp_path / "checkpoint")[0], rows, 0, 500, Hardware(torch.device("cpu")))
    np.testing.assert_allclose(there, here, atol=2e-2)


@pytest.mark.parametrize("family", ["bert"], indirect=True)
def test_memory_that_runs_out_names_the_setting_and_auto_batch_finds_what_fits(family: Path, tmp_path: Path) -> None:
    fitter = Fitter(LABELS, GPU, tmp_path, ALONE, [], lambda: False)
    backbone = Backbone(family.name, family, "0" * 64, "unknown")
    most = 300e6 / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(most)
    try:
        with pytest.raises(ParamsError, match=r"train\.batch_tokens: 400000 tokens a batch do not fit into the memory of cuda"):
            fitter.fit(backbone, toy_data(toy(60_000, 1)), recipe_of(batch_tokens=400_000, epochs=1), "")
        _, _, used = fitter.fit(backbone, toy_data(toy(60_000, 1)), recipe_of(batch_tokens=400_000, epochs=1, auto_batch=True), "")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert used.batch_tokens < 400_000
    assert used.batch_tokens * used.accumulation == 400_000


@pytest.mark.parametrize("family", ["bert"], indirect=True)
def test_a_rate_that_is_too_high_is_one_line(family: Path) -> None:
    with pytest.raises(ParamsError, match=r"train\.lr"):
        weights(family, lr=1e12, max_grad_norm=1e12)
