"""Pruning of every family: how much goes, which parts, that they stay away, and that checkpoints are those of stock transformers."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from test_families import FAMILIES as CONFIGS
from test_training import CPU, HARDWARE, RECIPE, KilledError, recipe_of, three_labels, toy, toy_data, weights_of
from transformers import AutoModelForSequenceClassification, DebertaV2Config, PreTrainedConfig, XLMRobertaConfig

from conftest import LABELS
from finsight.errors import ParamsError
from finsight.modeling.backbone import load_model
from finsight.modeling.batching import Data, collate
from finsight.modeling.checkpoint import load_checkpoint, save_checkpoint
from finsight.modeling.device import deterministic
from finsight.modeling.distributed import ALONE
from finsight.modeling.graph import export_onnx
from finsight.modeling.inference import predict
from finsight.modeling.pruning import Cut, hold_zeros, importance, matrices, plan, prune, zero_smallest
from finsight.modeling.training import Progress, fit
from finsight.modeling.units import heads_of, layers_of, neurons_of, remove_zero_heads
from finsight.params.train import TrainParams
from finsight.pipeline.fitting import NOT_OF_A_FIT, Fitter
from finsight.pipeline.pruned import Pruned, check, parameters, prune_and_recover
from finsight.ports import Backbone

ALL = {"layers": 1, "heads": 0.5, "feed_forward": 0.5, "magnitude": 0.25}


def with_four_heads(config: PreTrainedConfig) -> PreTrainedConfig:
    config = copy.deepcopy(config)
    config.num_attention_heads = 4
    return config


FAMILIES = {name: with_four_heads(config) for name, config in CONFIGS.items() if name != "finbert"}
FAMILIES["deberta-v2"] = DebertaV2Config(**FAMILIES["deberta-v3"].to_dict() | {"share_att_key": False})
FAMILIES["xlm-roberta"] = XLMRobertaConfig(**FAMILIES["roberta"].to_dict())


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's random model: 3 layers, 32 wide, 4 heads, 64 neurons."""
    made = tmp_path_factory.mktemp("families")

    def folder(name: str) -> Path:
        if not (made / name).exists():
            torch.manual_seed(0)
            model = AutoModelForSequenceClassification.from_config(FAMILIES[name])
            for parameter in model.parameters():  # biases and norms begin as zeros and ones, where an error would not be seen
                torch.nn.init.normal_(parameter, std=0.2)
            model.save_pretrained(made / name)
        return made / name

    return folder


@pytest.fixture
def bert(folder_of: Callable[[str], Path]) -> Any:
    return load_model(folder_of("bert"), LABELS).eval()


def some_data(n: int = 60) -> Data:
    return toy_data(toy(n, 1))


def pruned(model: Any, data: Data | None = None, **shares: float) -> int:
    asked: Any = {"layers": 0, "heads": 0.0, "feed_forward": 0.0, "magnitude": 0.0} | shares
    return prune(model, plan(model.config, **asked), data or some_data(), 256, CPU, ALONE)


def count(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def logits_of(model: Any) -> np.ndarray:
    return predict(model, toy(20, 5).ids, 0, 500, HARDWARE)


HEAD = 3 * (8 * 32 + 8) + 32 * 8  # queries, keys, values with biases, and the matrix that reads the head
NEURON = (32 + 1) + 32
LAYER = 4 * HEAD + 32 + 64 * NEURON + 32 + 2 * 64  # biases of what reads, two norms


@pytest.mark.parametrize(
    ("shares", "gone", "zeros"),
    [
        ({"layers": 1}, LAYER, 0),
        ({"layers": 2}, 2 * LAYER, 0),
        ({"heads": 0.5}, 3 * 2 * HEAD, 0),
        ({"feed_forward": 0.25}, 3 * 16 * NEURON, 0),
        ({"magnitude": 0.25}, 0, 3 * (4 * 32 * 32 + 2 * 32 * 64) // 4),
        (ALL, LAYER + 2 * (2 * HEAD + 32 * NEURON), 2 * (4 * 16 * 32 + 2 * 32 * 32) // 4),
    ],
)
def test_so_many_parameters_go(bert: Any, shares: dict[str, float], gone: int, zeros: int) -> None:
    before = count(bert)
    assert pruned(bert, **shares) == zeros
    assert parameters(bert) == before - gone
    assert count(remove_zero_heads(bert)) == before - gone
    assert sum(int((weight == 0).sum()) for weight in matrices(bert)) == zeros


@pytest.mark.parametrize("name", FAMILIES)
def test_stock_transformers_loads_it_and_its_heads_come_out(folder_of: Callable[[str], Path], name: str, tmp_path: Path) -> None:
    model = load_model(folder_of(name), LABELS)
    whole = count(model)
    pruned(model, **ALL)
    expected = logits_of(model)
    (tmp_path / "tokenizer").mkdir()
    save_checkpoint(model, tmp_path / "tokenizer", tmp_path / "checkpoint")
    stock, told = AutoModelForSequenceClassification.from_pretrained(tmp_path / "checkpoint", output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    np.testing.assert_allclose(logits_of(stock), expected, atol=1e-5)
    assert stock.config.num_hidden_layers == 2
    assert len(layers_of(stock)) == 2
    loaded, _ = load_checkpoint(tmp_path / "checkpoint")
    np.testing.assert_array_equal(logits_of(loaded), expected)
    smaller = remove_zero_heads(loaded)
    np.testing.assert_allclose(logits_of(smaller), expected, atol=1e-5)
    assert count(smaller) == parameters(model) < count(model) < whole
    assert [units.reader.in_features for units in heads_of(smaller)] == [16, 16]


@pytest.mark.parametrize("name", ["bert", "mpnet", *(pytest.param(name, marks=pytest.mark.long) for name in ("deberta-v3", "modernbert"))])
def test_its_graph_is_smaller_and_equal(folder_of: Callable[[str], Path], name: str, tmp_path: Path) -> None:
    model = load_model(folder_of(name), LABELS).eval()
    pruned(model, heads=0.5)
    expected = logits_of(model)
    graph = tmp_path / "smaller.onnx"
    export_onnx(remove_zero_heads(model), graph, 20)
    stored = [tensor for tensor in onnx.load(graph).graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    assert sum(int(np.prod(tensor.dims)) for tensor in stored) == pytest.approx(count(model), rel=0.02), "constants are few"
    assert count(model) < 0.95 * count(load_model(folder_of(name), LABELS)), "so that the limit tells both apart"
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    for ids, logits in zip(toy(20, 5).ids, expected, strict=True):
        tokens, mask = collate([ids], 0)
        np.testing.assert_allclose(session.run(None, {"input_ids": tokens, "attention_mask": mask})[0][0], logits, atol=1e-4)


def test_a_model_that_was_not_pruned_is_left_alone(bert: Any) -> None:
    before = weights_of(bert)
    assert weights_of(remove_zero_heads(bert)) == before


def test_one_head_stays_where_all_are_zero(bert: Any) -> None:
    heads_of(bert)[1].clear([0, 1, 2, 3])
    expected = logits_of(bert)
    np.testing.assert_allclose(logits_of(remove_zero_heads(bert)), expected, atol=1e-5)
    assert heads_of(bert)[1].reader.in_features == 8


def test_layers_go_from_the_top_and_the_rest_is_untouched(bert: Any) -> None:
    before = {name: parameter.detach().clone() for name, parameter in bert.named_parameters()}
    pruned(bert, layers=2)
    after = dict(bert.named_parameters())
    assert {name for name in before if name not in after} == {name for name in before if ".layer.1." in name or ".layer.2." in name}
    assert all(torch.equal(parameter, before[name]) for name, parameter in after.items())


def test_what_nothing_reads_goes_first(bert: Any) -> None:
    """And without it the answers are the same."""
    unread = {0: 2, 1: 0, 2: 3}
    idle = list(range(8, 24))
    with torch.no_grad():
        for layer, head in unread.items():
            heads_of(bert)[layer].reader.weight[:, 8 * head : 8 * head + 8] *= 1e-6
            neurons_of(bert)[layer].reader.weight[:, idle] = 0
    expected, kept = logits_of(bert), [units.makers[0].weight[[0, 63]].detach().clone() for units in neurons_of(bert)]
    pruned(bert, heads=0.25, feed_forward=0.25)
    assert [units.empty() for units in heads_of(bert)] == [[2], [0], [3]]
    assert all(torch.equal(units.makers[0].weight[[0, 47]], rows) for units, rows in zip(neurons_of(bert), kept, strict=True))
    np.testing.assert_allclose(logits_of(bert), expected, atol=1e-4)


def test_importance_is_how_fast_the_loss_of_each_row_changes_with_the_unit(bert: Any) -> None:
    """By a central difference of the unit's weights in the matrix that reads it."""
    data = toy_data(toy(6, 1))
    judged = [heads_of(bert)[1], neurons_of(bert)[0]]
    found = importance(bert, judged, data, 40, CPU, ALONE)
    double = copy.deepcopy(bert).double()
    twins, step = [heads_of(double)[1], neurons_of(double)[0]], 1e-4

    @torch.no_grad()
    def losses(units: Any, unit: int, factor: float) -> torch.Tensor:
        columns = slice(unit * units.size, (unit + 1) * units.size)
        units.reader.weight[:, columns] *= factor
        logits = [double(input_ids=torch.tensor(ids[None].astype(np.int64))).logits[0] for ids in data.train.ids]
        units.reader.weight[:, columns] /= factor
        return -(torch.stack(logits).log_softmax(dim=1) * torch.tensor(data.targets)).sum(dim=1)

    for units, worth in zip(twins, found, strict=True):
        for unit in range(min(units.count, 8)):
            slopes = (losses(units, unit, 1 + step) - losses(units, unit, 1 - step)) / (2 * step)
            assert worth[unit].item() == pytest.approx(slopes.abs().sum().item(), rel=1e-3)


def test_of_many_rows_some_are_judged_by_evenly(bert: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = toy(50, 1)
    monkeypatch.setattr("finsight.modeling.pruning.JUDGED_ROWS", 8)
    some = importance(bert, heads_of(bert), toy_data(rows), 256, CPU, ALONE)
    monkeypatch.setattr("finsight.modeling.pruning.JUDGED_ROWS", 4096)
    chosen = [0, 7, 14, 21, 28, 35, 42, 49]
    few = toy_data(type(rows)([rows.ids[i] for i in chosen], rows.labels[chosen]))
    for a, b in zip(some, importance(bert, heads_of(bert), few, 256, CPU, ALONE), strict=True):
        torch.testing.assert_close(a, b)


def test_the_smallest_weights_of_each_matrix_become_zero() -> None:
    large, small = (torch.nn.Parameter(torch.tensor(rows)) for rows in ([[5.0, -6.0, 7.0, 8.0]], [[0.0, 0.2], [-0.1, 0.3], [-0.4, 0.5]]))
    assert zero_smallest([large, small], 0.4) == 4
    assert large.tolist() == [[0.0, 0.0, 7.0, 8.0]]
    assert small.flatten().tolist() == pytest.approx([0.0, 0.0, 0.0, 0.3, -0.4, 0.5])


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "xlm-roberta"])
def test_what_is_zero_stays_zero_in_training(folder_of: Callable[[str], Path], name: str) -> None:
    """Heads by themselves, single weights since no gradient reaches them."""
    model = load_model(folder_of(name), LABELS)
    pruned(model, heads=0.5, magnitude=0.3)
    zeros = [weight == 0 for weight in matrices(model)]
    assert all(bool(found.any()) for found in zeros)
    hold_zeros(matrices(model))
    heads = [units.empty() for units in heads_of(model)]
    before = [weight.detach().clone() for weight in matrices(model)]
    with deterministic(1):
        fit(model, some_data(), recipe_of(epochs=2, weight_decay=0.1, dropout=0.0), HARDWARE, three_labels)
    assert all(torch.equal(weight == 0, found) for weight, found in zip(matrices(model), zeros, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(matrices(model), before, strict=True)), "the others learn"
    assert [units.empty() for units in heads_of(model)] == heads
    assert [len(found) for found in heads] == [2, 2, 2]
    for units, found in zip(heads_of(model), heads, strict=True):
        for maker in units.makers:
            assert not any(bool(p.view(-1, 4, 8, p[0].numel())[:, found].any()) for p in maker.parameters()), "biases too"


@pytest.mark.parametrize(
    ("shares", "says"),
    [
        ({"layers": 3}, r"train\.prune\.layers: got 3, expected less than 3, the layers of this backbone"),
        ({"heads": 0.1}, r"train\.prune\.heads: 0\.1 of the 4 heads of a layer are 0, expected 1 to 3"),
        ({"heads": 0.9}, r"train\.prune\.heads: 0\.9 of the 4 heads of a layer are 4, expected 1 to 3"),
        (
            {"feed_forward": 0.01},
            r"train\.prune\.feed_forward: without 0\.01 of its 64 neurons a layer has 64, by steps of 8; expected 8 to 63",
        ),
        ({"feed_forward": 0.99}, r"train\.prune\.feed_forward: .* has 0"),
    ],
)
def test_shares_that_are_nothing_or_everything_are_refused(shares: dict[str, float], says: str) -> None:
    with pytest.raises(ParamsError, match=says):
        plan(FAMILIES["bert"], **{"layers": 0, "heads": 0.0, "feed_forward": 0.0, "magnitude": 0.0} | shares)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ALL)
def test_a_family_whose_parts_are_not_known_is_refused_by_name(key: str) -> None:
    from transformers import AlbertConfig

    asked: Any = {**dict.fromkeys(ALL, 0), key: ALL[key]}
    known = "bert, deberta-v2, distilbert, electra, modernbert, mpnet, roberta, xlm-roberta"
    with pytest.raises(ParamsError, match=rf"train\.prune\.{key}: not possible with a backbone of the family albert, only with {known}"):
        plan(AlbertConfig(), **asked)
    assert plan(AlbertConfig(), **dict.fromkeys(ALL, 0)) == Cut(0, 0, 0, 0.0)


def recipe(**shares: float) -> TrainParams:
    section = {**RECIPE["prune"], **shares}
    return recipe_of(prune=section, epochs=2, save_every=0.0)


def ended(folder: Path, scratch: Path, params: TrainParams, observers: Any = (), rows: int = 300) -> tuple[Pruned, dict[str, float]]:
    """Train, prune and recover as the stage does."""
    backbone, data = Backbone("tiny", folder, "0" * 64, "none", []), toy_data(toy(rows, 1))
    work = Fitter(LABELS, HARDWARE, scratch, ALONE, observers, lambda: False)
    check(backbone, params)
    with deterministic(params.seed):
        model, fitted, used = work.fit(backbone, data, params, "", keep=params.prune.epochs > 0)
        found = prune_and_recover(work, backbone, data, used, model, fitted, lambda _: None)
    work.clear()
    return found, fitted.epochs[fitted.epoch - 1]


def test_it_recovers_and_says_what_it_cost(tiny_backbone: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    params = recipe_of(epochs=5, prune={**ALL, "epochs": 4})
    found, best = ended(tiny_backbone, tmp_path, params, [seen.append], 900)
    assert best["validation_macro_f1"] > 0.9
    report = found.report
    assert report["validation_macro_f1_before"] == best["validation_macro_f1"]
    after = three_labels(predict(found.model, toy(60, 2).ids, 0, 1024, HARDWARE), toy(60, 2).labels)
    assert report["validation_macro_f1_recovered"] == after["macro_f1"] == found.metrics["validation_macro_f1"]
    assert report["validation_macro_f1_recovered"] > report["validation_macro_f1_pruned"], "it was pruned hard"
    assert (report["layers"], report["heads_of_a_layer"], report["neurons_of_a_layer"], report["epochs"]) == (1, 1, 32, 4)
    assert report["parameters_after"] == parameters(found.model)
    assert report["parameters_before"] == count(load_model(tiny_backbone, LABELS))
    assert sum(int((weight == 0).sum()) for weight in matrices(found.model)) == report["zeros_in_the_layers"] + 4 * 16 * 32
    assert list(dict.fromkeys(progress.name for progress in seen)) == ["", "recovery"]
    assert found.rows == 4 * 900


def test_without_epochs_the_pruned_model_is_what_is_kept(tiny_backbone: Path, tmp_path: Path) -> None:
    found, _ = ended(tiny_backbone, tmp_path, recipe(heads=0.5, epochs=0))
    assert found.metrics["validation_macro_f1"] == found.report["validation_macro_f1_pruned"]
    assert "validation_macro_f1_recovered" not in found.report
    assert list(tmp_path.glob("*")) == []


def test_the_same_seed_gives_the_same_bytes_and_the_training_is_not_repeated(tiny_backbone: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    first, again = (ended(tiny_backbone, tmp_path / name, recipe(**ALL))[0] for name in ("a", "b"))
    assert weights_of(first.model) == weights_of(again.model)
    kept = ended(tiny_backbone, tmp_path / "a", recipe(**ALL), [seen.append])[0]
    assert weights_of(kept.model) == weights_of(first.model)
    assert {progress.name for progress in seen} == {"recovery"}
    other = ended(tiny_backbone, tmp_path / "a", recipe(heads=0.5), [seen.append])[0]
    assert {progress.name for progress in seen} == {"recovery"}, "nor for other shares"
    assert weights_of(other.model) != weights_of(first.model)


@pytest.mark.parametrize("at", [1, 5])
def test_a_recovery_that_is_killed_goes_on_to_the_same_weights(tiny_backbone: Path, tmp_path: Path, at: int) -> None:
    expected = ended(tiny_backbone, tmp_path / "whole", recipe(**ALL))[0]
    seen: list[Progress] = []

    def kill(progress: Progress) -> None:
        if progress.name and progress.step == at and not progress.metrics:
            raise KilledError

    with pytest.raises(KilledError):
        ended(tiny_backbone, tmp_path / "killed", recipe(**ALL), [kill])
    found = ended(tiny_backbone, tmp_path / "killed", recipe(**ALL), [seen.append])[0]
    assert weights_of(found.model) == weights_of(expected.model)
    assert found.report == expected.report
    assert {progress.name for progress in seen} == {"recovery"}
    assert seen[0].step == at, "the step that was not kept is done again"


def test_what_is_kept_of_fits_does_not_depend_on_pruning() -> None:
    dumps = [params.model_dump(exclude=NOT_OF_A_FIT) for params in (recipe(), recipe(**ALL))]
    assert dumps[0] == dumps[1]
    assert "prune" not in dumps[0]
