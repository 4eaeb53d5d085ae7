"""Masked-language adaptation: what is masked, what is learned, whose texts are read, and that a killed one goes on."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from test_families import family
from test_training import HARDWARE, KilledError, recipe_of, weights_of
from transformers import PreTrainedTokenizerFast

from conftest import LABELS
from finsight.errors import ParamsError
from finsight.modeling.adaptation import MaskedWords, Masks
from finsight.modeling.backbone import load_masked, load_model
from finsight.modeling.batching import Data, Rows
from finsight.modeling.device import deterministic
from finsight.modeling.distributed import ALONE
from finsight.modeling.epochs import Batch
from finsight.modeling.training import Progress, fit
from finsight.pipeline.adaptation import adapt, check
from finsight.pipeline.fitting import Fitter
from finsight.ports import Backbone

__all__ = ["family"]  # the fixture
WORDS = np.arange(100, 500)
MASKS = Masks(0.15, 4, WORDS)


def texts(n: int, seed: int = 1) -> list[np.ndarray]:
    """A word from 100 on, then one that follows from it, three times."""
    rng = np.random.default_rng(seed)
    firsts = rng.integers(0, 20, (n, 3))
    return [np.array([2, *(word for first in row for word in (100 + first, 200 + first)), 3], dtype=np.int32) for row in firsts]


def data_of(ids: list[np.ndarray]) -> Data:
    n, none = len(ids), np.zeros(0, dtype=np.int64)
    ones = np.ones(n, dtype=np.float32)
    return Data(Rows(ids, np.zeros(n, dtype=np.int64)), np.zeros((n, 1), dtype=np.float32), ones, Rows([], none), 0)


def test_of_the_chosen_words_most_are_masked_and_some_stay_or_change(tiny_backbone: Path) -> None:
    passes = MaskedWords(load_masked(tiny_backbone), data_of(texts(9)), recipe_of(), HARDWARE, False, masks=MASKS)
    torch.manual_seed(1)
    tokens = torch.randint(100, 500, (400, 500))
    tokens[:, 0], tokens[:, -50:] = 2, 0
    shown, chosen = passes.masked(tokens)
    assert not chosen[:, 0].any()
    assert not chosen[:, -50:].any(), "special tokens are never told"
    assert chosen[:, 1:-50].float().mean().item() == pytest.approx(0.15, abs=0.003)
    assert torch.equal(shown[~chosen], tokens[~chosen])
    was, now = tokens[chosen], shown[chosen]
    assert (now == 4).float().mean().item() == pytest.approx(0.8, abs=0.01)
    assert (now == was).float().mean().item() == pytest.approx(0.1, abs=0.01)
    others = now[(now != 4) & (now != was)]
    assert len(others) / len(now) == pytest.approx(0.1, abs=0.01)
    assert 100 <= others.min() < 105 < 495 < others.max() < 500
    again = passes.masked(tokens)[0]
    torch.manual_seed(1)
    torch.randint(100, 500, (400, 500))
    assert torch.equal(passes.masked(tokens)[0], shown)
    assert not torch.equal(again, shown)


def test_each_familys_loss_is_the_one_transformers_computes_and_its_encoder_becomes_a_classifiers(family: Path) -> None:
    torch.manual_seed(0)
    model = load_masked(family, dropout=0.0)
    data = data_of(texts(8))
    passes = MaskedWords(model, data, recipe_of(), HARDWARE, False, masks=MASKS)
    passes.begin(0, Batch(data, np.arange(2)))
    torch.manual_seed(7)
    passes.add(Batch(data, np.arange(8)), 1.0, 1.0)
    tokens = torch.from_numpy(np.stack(texts(8))).long()
    torch.manual_seed(7)
    shown, chosen = passes.masked(tokens)
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    loss = model(input_ids=shown, attention_mask=torch.ones_like(shown), labels=torch.where(chosen, tokens, -100)).loss
    loss.backward()
    tells = chosen.sum() / (0.15 * 6)  # rows that so many chosen tokens are of, in the mean
    assert passes.total.item() == pytest.approx((loss * tells).item(), rel=1e-4)
    for name, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(grads[name], p.grad * tells, atol=1e-5, rtol=1e-3)
    classifier = load_model(family, LABELS, new_head=True)
    found = classifier.base_model.load_state_dict(model.base_model.state_dict(), strict=False)
    assert found.unexpected_keys == []
    assert all("pooler" in key for key in found.missing_keys)


def test_it_learns_which_words_stand_where(tiny_backbone: Path) -> None:
    recipe = recipe_of(epochs=6, lr=1e-2, dropout=0.0, layer_decay=1.0, patience=1)
    with deterministic(1):
        model = load_masked(tiny_backbone, dropout=0.0)
        fitted = fit(model, data_of(texts(400)), recipe, HARDWARE, lambda *_: {}, passes=lambda *a: MaskedWords(*a, masks=MASKS))
    losses = [epoch["train_loss"] for epoch in fitted.epochs]
    assert fitted.epoch == 6, "without validation rows the last epoch is the one that is kept"
    assert losses[0] > np.log(300), "at first it knows nothing of 2000 words"
    assert losses[-1] < 3.4 < np.log(40), "then more than which forty there are"


def prepared(folder: Path, backbone: Path) -> Path:
    """What the prepare stage writes, validation and test left out: nobody may read them."""
    (folder / "tokenizer").mkdir(parents=True)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(backbone / file, folder / "tokenizer" / file)
    for name, n in (("train", 200), ("unlabelled", 100)):
        ids = texts(n, seed=len(name))
        whole = pa.array([0] * n, pa.int16())
        pq.write_table(pa.table({"label_id": whole, "agreement": whole}), folder / f"{name}.parquet")
        tokens = pa.table({"input_ids": pa.array([row.tolist() for row in ids], pa.list_(pa.int32()))})
        with pa.ipc.new_file(str(folder / f"{name}.arrow"), tokens.schema) as file:
            file.write_table(tokens)
    return folder


def adapted(backbone: Path, folder: Path, scratch: Path, observers: Any = (), **changes: Any) -> tuple[Any, dict[str, Any]]:
    """The classifier that training would begin with."""
    params = recipe_of(adapt={"epochs": 2, "lr": 1e-3, "mask": 0.15}, save_every=0.0, **changes)
    work = Fitter(LABELS, HARDWARE, scratch, ALONE, observers, lambda: False)
    with deterministic(params.seed):
        start, report = adapt(work, Backbone("tiny", backbone, "0" * 64, "none", []), folder, params)
        return start.make(), report


def test_training_begins_with_the_adapted_encoder_and_another_seed_does_not_read_again(tiny_backbone: Path, tmp_path: Path) -> None:
    folder, seen = prepared(tmp_path / "prepared", tiny_backbone), list[Progress]()
    model, report = adapted(tiny_backbone, folder, tmp_path / "a", [seen.append])
    assert report["texts"] == 300
    assert len(report["losses"]) == 2
    assert report["losses"][1] < report["losses"][0]
    assert {progress.name for progress in seen} == {"adaptation"}
    assert [file.name.split("-")[0] for file in (tmp_path / "a").iterdir()] == ["adapted"], "its state is gone"
    plain = load_model(tiny_backbone, LABELS)
    before = dict(plain.named_parameters())
    moved = {name for name, p in model.base_model.named_parameters() if not torch.equal(p, before[f"bert.{name}"])}
    assert moved == {name for name, _ in model.base_model.named_parameters() if "pooler" not in name and "token_type" not in name} | {
        "embeddings.token_type_embeddings.weight"
    }
    seen.clear()
    again, told = adapted(tiny_backbone, folder, tmp_path / "a", [seen.append], label_smoothing=0.1, r_drop=0.5)
    assert (told, seen) == (report, []), "what is of labels alone does not change what was read"
    assert weights_of(again.base_model) == weights_of(model.base_model)
    assert weights_of(adapted(tiny_backbone, folder, tmp_path / "b")[0]) == weights_of(model)
    assert weights_of(adapted(tiny_backbone, folder, tmp_path / "a", seed=2)[0].base_model) != weights_of(model.base_model)


@pytest.mark.parametrize("at", [pytest.param(1, marks=pytest.mark.long), 9])
def test_an_adaptation_that_is_killed_goes_on_to_the_same_weights(tiny_backbone: Path, tmp_path: Path, at: int) -> None:
    folder = prepared(tmp_path / "prepared", tiny_backbone)
    expected, report = adapted(tiny_backbone, folder, tmp_path / "whole")

    def kill(progress: Progress) -> None:
        if progress.step == at:
            raise KilledError

    with pytest.raises(KilledError):
        adapted(tiny_backbone, folder, tmp_path / "scratch", [kill])
    seen: list[Progress] = []
    found, told = adapted(tiny_backbone, folder, tmp_path / "scratch", [seen.append])
    assert seen[0].step == at, "the step that was not kept, no more"
    assert told == report
    assert weights_of(found) == weights_of(expected)


def test_what_cannot_be_masked_is_refused_by_name(tiny_backbone: Path, tmp_path: Path) -> None:
    recipe = recipe_of(adapt={"epochs": 1})
    folder = tmp_path / "tiny"
    shutil.copytree(tiny_backbone, folder)
    backbone = Backbone("tiny", folder, "0" * 64, "none", [])
    check(backbone, recipe)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.mask_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(ParamsError, match=r"train\.adapt: tiny's tokenizer has no mask token; set train\.adapt\.epochs to 0"):
        check(backbone, recipe)
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(ParamsError, match=r"train\.adapt: transformers has no masked language model of tiny's kind; set train\.adapt"):
        check(backbone, recipe)
    check(backbone, recipe_of())
