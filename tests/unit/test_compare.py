"""Two models on the same rows: the verdict, what it rests on, and the gates."""

from __future__ import annotations

import html
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from conftest import REPO
from finsight.domain.significance import BETTER, SAME, WORSE, mcnemar
from finsight.errors import DataError, ParamsError
from finsight.params.evaluate import EvaluateParams, SliceParams
from finsight.params.file import load_params
from finsight.params.gates import GateParams
from finsight.pipeline.compare import Side, compare, read_side
from finsight.pipeline.comparison import as_json, as_markdown, as_text, verdict
from finsight.pipeline.gating import failures, undecided
from finsight.pipeline.predictions import Predictions, measure, predictions, read_predictions, write_predictions
from finsight.pipeline.slices import slices

LABELS = ["negative", "neutral", "positive"]
POLARITY = {"negative": -1.0, "neutral": 0.0, "positive": 1.0}
PARAMS = load_params(REPO / "params.yaml").evaluate.model_copy(update={"bootstrap_resamples": 1000})
GATES = GateParams(primary="not worse", at_most={}, at_least={}, max_bundle_growth=None)


def rows(n: int, **columns: list[Any]) -> pa.Table:
    content: dict[str, list[Any]] = {
        "id": [f"x.csv:{i}" for i in range(n)],
        "hash": [f"{i:04x}" for i in range(n)],
        "corpus": ["wire" if i % 3 else "posts" for i in range(n)],
        "agreement": [None] * n,
        "leak": [None] * n,
        "near_group": [f"{i:04x}" for i in range(n)],
        "text": [f"Profit of firm {i} rose" if i % 2 else "Sales were not what they had been" for i in range(n)],
        "label": [LABELS[i % 3] for i in range(n)],
        "label_id": [i % 3 for i in range(n)],
    }
    return pa.table(content | columns)


def model(table: pa.Table, accuracy: float, seed: int, labels: list[str] = LABELS) -> Predictions:
    rng = np.random.default_rng(seed)
    actual = np.array([labels.index(label) for label in table["label"].to_pylist()])
    right = rng.random(len(actual)) < accuracy
    predicted = np.where(right, actual, (actual + rng.integers(1, 3, len(actual))) % 3)
    probs = np.eye(3)[predicted] * 0.7 + 0.1
    return predictions(Path("test.parquet"), table, labels, probs)


def against(base: Predictions, new: Predictions, params: EvaluateParams = PARAMS, gates: GateParams = GATES, **reports: Any) -> Any:
    """A comparison; ``before`` and ``after`` are the reports of the two."""
    sides = Side("main", base, reports.get("before", {})), Side("workspace", new, reports.get("after", {}))
    found = compare(*sides, POLARITY, params)
    return found | {"gates": failures(found, sides[1], gates)}


@pytest.fixture
def table() -> pa.Table:
    return rows(600)


def test_a_better_model_is_called_better_and_the_other_way_round_worse(table: pa.Table) -> None:
    worse, better = model(table, 0.7, 1), model(table, 0.9, 2)
    found = against(worse, better)
    assert (found["verdict"], found["gates"]) == (BETTER, [])
    primary = found["metrics"]["macro_f1"]
    assert primary["new"] - primary["base"] == pytest.approx(primary["difference"])
    assert 0.1 < primary["low"] < primary["difference"] < primary["high"] < 0.3
    assert found["metrics"]["ordinal_error"]["verdict"] == BETTER, "less of it is better"
    assert found["metrics"]["ordinal_error"]["difference"] < 0
    assert set(found["metrics"]) >= {"accuracy", "mcc", "nll", "brier", "ece", "auroc", *(f"f1_{label}" for label in LABELS)}
    back = against(better, worse)
    assert back["verdict"] == WORSE
    assert back["gates"] == ["gates.primary: macro_f1 has to be not worse, it is: worse"]
    assert back["metrics"]["macro_f1"]["difference"] == -primary["difference"]


def test_equal_models_don_t_differ_and_the_rows_that_would_tell_are_said(table: pa.Table) -> None:
    found = against(model(table, 0.85, 1), model(table, 0.86, 2))
    assert (found["verdict"], found["gates"]) == (SAME, [])
    assert found["rows_needed"] > 600
    assert f"about {found['rows_needed']:,} test rows would tell" in verdict(found)
    wanted = against(model(table, 0.85, 1), model(table, 0.86, 2), gates=GATES.model_copy(update={"primary": "better"}))
    (failure,) = wanted["gates"]
    assert failure.startswith("gates.primary: macro_f1 has to be better, it is: no significant difference (about ")
    better = GATES.model_copy(update={"primary": "better"})
    turned = against(model(table, 0.86, 2), model(table, 0.85, 1), gates=better)
    assert (turned["verdict"], len(turned["gates"])) == (SAME, 1)
    up, down = sorted((wanted, turned), key=lambda found: -found["metrics"]["macro_f1"]["difference"])
    assert undecided(up, better, up["gates"])
    assert not undecided(down, better, down["gates"]), "more rows would show that it is worse"
    wanted = up
    assert not undecided(wanted, better, [*wanted["gates"], "another"])
    assert not undecided(found, GATES, [])


def test_the_other_metrics_are_corrected_for_their_number(table: pa.Table) -> None:
    base, new = model(table, 0.78, 5), model(table, 0.84, 6)
    found = against(base, new)
    alone = against(base, new, PARAMS.model_copy(update={"primary": "accuracy"}))
    assert found["metrics"]["accuracy"]["p"] > alone["metrics"]["accuracy"]["p"]
    few = PARAMS.model_copy(update={"min_slice_rows": 1000})
    assert found["metrics"]["accuracy"]["p"] > against(base, new, few)["metrics"]["accuracy"]["p"], "slices are metrics too"


def test_the_rows_that_changed_sides(table: pa.Table) -> None:
    base, new = model(table, 0.8, 1), model(table, 0.85, 2)
    found = against(base, new)
    was, now = base.predicted == base.actual, new.predicted == new.actual
    assert [f["id"] for f in found["flips"]["fixed"]] == [f"x.csv:{i}" for i in np.flatnonzero(~was & now)]
    assert found["mcnemar"] == {
        "fixed": int((~was & now).sum()),
        "broken": int((was & ~now).sum()),
        "p": mcnemar(int((~was & now).sum()), int((was & ~now).sum())),
    }
    assert all(f["new"] == f["label"] != f["base"] for f in found["flips"]["fixed"])
    assert all(f["base"] == f["label"] != f["new"] for f in found["flips"]["broken"])


def test_only_rows_that_both_have_count(table: pa.Table) -> None:
    order = np.random.default_rng(0).permutation(600)[:500]
    other = rows(600, label=[LABELS[(i % 3 + (i == order[0])) % 3] for i in range(600)])  # one row has another label there
    base, whole = model(table, 0.8, 1), model(other, 0.85, 2)
    found = against(base, whole.take(order))
    assert found["rows"] == {"base": 600, "new": 500, "both": 499}
    common = np.sort(order[1:])
    assert found["metrics"]["accuracy"]["base"] == pytest.approx((base.predicted == base.actual)[common].mean())
    assert found["metrics"]["accuracy"]["new"] == pytest.approx((whole.predicted == whole.actual)[common].mean())
    assert "compared on 499." in as_text(found)


def test_rows_of_equal_text_are_paired_in_their_order() -> None:
    twice = rows(600, hash=[f"{i // 6:04x}" for i in range(600)])  # two rows of each text have one label
    base, new = model(twice, 0.8, 1), model(twice, 0.85, 2)
    found = against(base, new)
    was, now = base.predicted == base.actual, new.predicted == new.actual
    assert (found["mcnemar"]["fixed"], found["mcnemar"]["broken"]) == (int((~was & now).sum()), int((was & ~now).sum()))
    assert against(base, base)["flips"] == {"fixed": [], "broken": []}


def test_near_duplicates_are_one_observation(table: pa.Table) -> None:
    """Three texts that stand twelve times each and are all fixed are no evidence of 36 rows."""
    base = model(table, 0.8, 1)
    wrong = np.flatnonzero(base.predicted != base.actual)[:36]
    probs = base.probs.copy()
    probs[wrong] = np.eye(3)[base.actual[wrong]] * 0.7 + 0.1
    groups = np.array(table["near_group"].to_pylist(), dtype=object)
    for i in range(3):
        groups[[w for w in wrong if base.actual[w] == i]] = f"g{i}"
    near = table.set_column(table.column_names.index("near_group"), "near_group", pa.array(groups.tolist()))
    apart, together = (
        against(predictions(Path("t"), t, LABELS, base.probs), predictions(Path("t"), t, LABELS, probs)) for t in (table, near)
    )
    assert apart["metrics"]["accuracy"]["difference"] == pytest.approx(together["metrics"]["accuracy"]["difference"])
    assert (apart["verdict"], together["verdict"]) == (BETTER, SAME)


def test_a_few_rows_that_moved_alike_are_no_difference(table: pa.Table) -> None:
    """Four rows fixed and none broken: McNemar's exact p is .125."""
    base = model(table, 0.8, 1)
    wrong = np.flatnonzero(base.predicted != base.actual)[:4]
    probs = base.probs.copy()
    probs[wrong] = np.eye(3)[base.actual[wrong]] * 0.7 + 0.1
    found = against(base, predictions(Path("t"), table, LABELS, probs))
    assert found["verdict"] == SAME
    assert found["metrics"]["macro_f1"]["p"] == pytest.approx(0.125, abs=0.02)


@pytest.mark.parametrize("order", [[2, 1, 0], [1, 2, 0], [2, 0, 1]])
def test_labels_in_another_order_are_the_same_labels(table: pa.Table, order: list[int]) -> None:
    base = model(table, 0.8, 1)
    turned = predictions(Path("t"), table, [LABELS[i] for i in order], base.probs[:, order])
    found = against(base, turned)
    assert (found["mcnemar"]["fixed"], found["mcnemar"]["broken"]) == (0, 0)
    assert all(row["difference"] == pytest.approx(0) for row in found["metrics"].values())


def test_what_can_t_be_compared_is_refused(table: pa.Table) -> None:
    base = model(table, 0.8, 1)
    moods = predictions(Path("t"), rows(600, label=["up", "down"] * 300), ["up", "down"], np.full((600, 2), 0.5))
    with pytest.raises(DataError, match=r"main has the labels .* can't be compared"):
        against(base, moods)
    with pytest.raises(DataError, match="no test row in common"):
        against(base, model(rows(600, hash=[f"y{i}" for i in range(600)]), 0.8, 1))


def test_gates_on_numbers_and_size(table: pa.Table) -> None:
    formats = {"bytes": 100, "texts_per_second": 10.0, "single_text_p50_ms": 2.0}
    reports = {
        "before": {"export": {"formats": {"onnx-fp32": formats}}},
        "after": {"metrics": {"ece": 0.2, "accuracy": 0.7}, "export": {"formats": {"onnx-fp32": formats | {"bytes": 161}}}},
    }
    gates = GateParams(
        primary="off",
        at_most={"ece": 0.1, "nosuch": 1, "export.formats.onnx-fp32.bytes": 160},
        at_least={"accuracy": 0.7, "mcc": 0.5},
        max_bundle_growth=0.6,
    )
    assert against(model(table, 0.9, 1), model(table, 0.5, 1), gates=gates, **reports)["gates"] == [
        "gates.at_most.ece is 0.2, at most 0.1 is allowed",
        "gates.at_most.nosuch was not measured, at most 1 is allowed",
        "gates.at_most.export.formats.onnx-fp32.bytes is 161, at most 160 is allowed",
        "gates.at_least.mcc was not measured, at least 0.5 is allowed",
        "gates.max_bundle_growth: onnx-fp32 is 61% larger, the limit is 60%",
    ]
    (failure,) = against(model(table, 0.9, 1), model(table, 0.9, 2), gates=GATES.model_copy(update={"max_bundle_growth": 0.5}))["gates"]
    assert failure == "gates.max_bundle_growth: there is no format of the bundle that both have (reports/export.json)"


def test_slices_divide_the_rows_and_small_ones_are_marked(table: pa.Table) -> None:
    own = {"firm": SliceParams(pattern=r"firm 1\d\b"), "near": SliceParams(column="near_group"), "absent": SliceParams(column="mood")}
    masks = slices(table.slice(0, 40), own)
    assert masks["corpus wire"].sum() + masks["corpus posts"].sum() == 40
    assert masks["with number"].tolist() == [i % 2 == 1 for i in range(40)]
    assert masks["with negation"].tolist() == [i % 2 == 0 for i in range(40)]
    assert np.flatnonzero(masks["with firm"]).tolist() == [11, 13, 15, 17, 19]
    assert not any("absent" in name for name in masks)
    assert "full agreement" not in masks, "no row says"
    found = against(model(table, 0.7, 1), model(table, 0.9, 2), PARAMS.model_copy(update={"slices": {"firm": own["firm"]}}))
    assert found["slices"]["with firm"] == {"rows": 5}, "too few for a verdict"
    assert "too few rows" in as_text(found)
    assert found["slices"]["corpus wire"]["verdict"] == BETTER


@pytest.mark.parametrize(
    ("text", "company", "negation"),
    [
        ("$TSLA slips in early trade", True, False),
        ("Shares of Hallmere Foods plc rose", True, False),
        ("Ostrava Cement lifts its outlook", True, False),
        ("Profit at Brook and Söder halved", True, False),
        ("On Monday March figures are due", False, False),
        ("In Finland sales rose on Sunday", False, False),
        ("The Finnish firm cut jobs", False, False),
        ("EBIT in Finland rose", False, False),
        ("The company did not pay a dividend", False, True),
        ("It hasn't been decided", False, True),
        ("Costs couldn’t be cut", False, True),
        ("Notable growth in the north", False, False),
        ("Profit rose", False, False),
    ],
)
def test_what_a_text_is_taken_for(text: str, company: bool, negation: bool) -> None:
    masks = slices(rows(2, text=[text, "nothing to see" if not company else "plain"]), {})
    assert ("with company or ticker" in masks and bool(masks["with company or ticker"][0])) == company
    assert ("with negation" in masks and bool(masks["with negation"][0])) == negation


def test_a_comment_shows_the_words_of_others_as_words(table: pa.Table) -> None:
    evil = "see [this](http://x) @everyone <b>now</b> | `rm` #1\nline www.x.example a@b.example \x1b[2J"
    strange = table.set_column(table.column_names.index("text"), "text", [[evil] * 600])
    said = as_markdown(against(model(strange, 0.7, 1), model(strange, 0.9, 2)))
    assert said.startswith("## 🟢 workspace is better in macro&#95;f1")
    for harm in ("[this]", "@everyone", "<b>", "`rm`", "#1\n"):
        assert harm not in said
    assert "&lt;b&gt;now" in said
    read = html.unescape(said)  # as a platform does, before it looks for addresses and names
    for harm in ("http://", "@everyone", "www.x", "a@b", "#1"):
        assert harm not in read
    assert "\x1b" not in as_text(against(model(strange, 0.7, 1), model(strange, 0.9, 2)))
    assert said.count("<details>") == said.count("</details>") >= 3


@pytest.mark.parametrize(
    ("gates", "code"),
    [
        ({}, 0),
        ({"primary": "better"}, 3),
        ({"at_least": {"accuracy": 1.01}}, 3),
        ({"primary": "better", "at_most": {"nll": 0.0}}, 3),
        ({"primary": "not worse", "at_most": {"behaviour.negation": 0.2}}, 3),
        ({"primary": "not worse", "at_most": {"behaviour.negation": 0.3}}, 0),
    ],
)
def test_the_command_ends_as_the_gates_do(
    table: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gates: dict[str, Any], code: int
) -> None:
    """A model against itself: not worse, and no number of rows would make it better."""
    from finsight.cli import main

    content = YAML().load((REPO / "params.yaml").read_text())
    content["evaluate"]["bootstrap_resamples"] = 1000
    content["gates"] |= {"max_bundle_growth": None, "at_most": {}} | gates
    YAML().dump(content, tmp_path / "params.yaml")
    (tmp_path / "reports").mkdir()
    found = model(table, 0.8, 1)
    write_predictions(tmp_path / "reports/predictions.parquet", found)
    told = measure(found, POLARITY, PARAMS) | {"behaviour": {"negation": 0.25}}
    (tmp_path / "reports/metrics.json").write_text(json.dumps(told))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["compare", "--base", "workspace", "--format", "json"])
    assert result.exit_code == code, result.output
    assert json.loads(result.stdout)["verdict"] == SAME


@pytest.mark.parametrize(("primary", "swapped", "code"), [("better", False, 4), ("better", True, 3), ("not worse", False, 0)])
def test_a_command_that_lacks_rows_alone_ends_with_four(
    table: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, primary: str, swapped: bool, code: int
) -> None:
    """Of two models that differ by chance, the one that seems better."""
    from finsight import bootstrap
    from finsight.cli import main

    first, second = (Side(name, model(table, accuracy, seed)) for name, accuracy, seed in (("old", 0.84, 1), ("new", 0.87, 2)))
    content = YAML().load((REPO / "params.yaml").read_text())
    content["evaluate"]["bootstrap_resamples"] = 1000
    content["gates"] |= {"max_bundle_growth": None, "at_most": {}, "primary": primary}
    YAML().dump(content, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bootstrap, "side", lambda _, name: {"old": first, "new": second}[name])
    base, new = ("new", "old") if swapped else ("old", "new")
    result = CliRunner().invoke(main, ["compare", "--base", base, "--new", new])
    assert result.exit_code == code, result.output
    assert "test rows would tell" in result.output


def test_all_forms_say_the_same(table: pa.Table, tmp_path: Path) -> None:
    write_predictions(tmp_path / "predictions.parquet", model(table, 0.9, 2))
    locked = {"train": {"lr": 2.0e-5}, "corpora.a.label_map": {"x": "y"}}
    outs = [{"path": "data/prepared", "md5": "b.dir"}]
    (tmp_path / "dvc.lock").write_text(json.dumps({"stages": {"train": {"params": {"params.yaml": locked}, "outs": outs}, "report": {}}}))
    (tmp_path / "prepare.json").write_text(
        json.dumps({"splits": {"train": {"rows": 10}}, "corpora": {"wire": 12}, "backbone": {"name": "m"}})
    )
    new = read_side("workspace", tmp_path, tmp_path / "dvc.lock")
    more = {"behaviour": {"negation": 0.25, "plain facts": 0.0}, "behaviour_cases": {"negation": 24, "plain facts": 20}}
    new = replace(new, reports={**new.reports, "metrics": more})
    told = {"metrics": {"behaviour": {"negation": 0.5, "plain facts": 0.0}}}
    base = Side("main", model(table, 0.7, 1), told, {"train.lr": 1e-4, "train.epochs": 3}, {"data/prepared": "a.dir"})
    found = compare(base, new, POLARITY, PARAMS)
    found["gates"] = failures(found, new, GATES)
    assert found["params"]["train.lr"] == {"base": 1e-4, "new": 2e-5}
    assert found["params"]["train.epochs"] == {"base": 3, "new": None}
    assert found["params"]["corpora.a.label_map"] == {"base": None, "new": {"x": "y"}}
    assert found["data"]["rows of train"] == {"base": None, "new": 10}
    assert found["data"]["digest of data/prepared"] == {"base": "a.dir", "new": "b.dir"}
    assert found["behaviour"] == {"negation": {"base": 0.5, "new": 0.25}}
    assert "| negation | 50% | 25% of 24 |" in as_markdown(found)
    assert "plain facts" not in as_markdown(found)
    assert not [key for key in compare(replace(base, outputs={}), new, POLARITY, PARAMS)["data"] if "digest" in key], "one has no dvc.lock"
    assert json.loads(as_json(found)) == found
    for said in (as_text(found), as_markdown(found)):
        assert "train" in said
        assert f"{found['metrics']['macro_f1']['difference']:+.3f}" in said
        assert "gates passed" in said


def test_metrics_of_another_model_are_refused(table: pa.Table, tmp_path: Path) -> None:
    """As after a `git checkout` without a `dvc checkout`."""
    found = model(table, 0.8, 1)
    write_predictions(tmp_path / "predictions.parquet", found)
    told = measure(found, POLARITY, PARAMS)
    for changed in ({"accuracy": 0.99}, {"n": 3}):
        (tmp_path / "metrics.json").write_text(json.dumps(told | changed))
        with pytest.raises(DataError, match="are not of one model; `dvc checkout` or `dvc repro evaluate` brings them together"):
            read_side("main", tmp_path, tmp_path / "dvc.lock")
    (tmp_path / "metrics.json").write_text(json.dumps(told))
    assert read_side("main", tmp_path, tmp_path / "dvc.lock").reports["metrics"] == told


def test_a_column_of_many_values_is_no_slice(table: pa.Table) -> None:
    with pytest.raises(ParamsError, match=r"evaluate\.slices\.day\.column: near_group has 600 values in 600 rows, at most 50"):
        slices(table, {"day": SliceParams(column="near_group")})
    missing = table.append_column("kind", pa.array(["None", None] * 300))
    assert slices(missing, {"kind": SliceParams(column="kind")})["kind None"].sum() == 300


def test_long_texts_without_spaces_are_shortened_not_lost(table: pa.Table) -> None:
    long = table.set_column(table.column_names.index("text"), "text", [["利益" * 200] * 600])
    said = as_markdown(against(model(long, 0.7, 1), model(long, 0.9, 2)))
    assert "利益" * 100 in said
    assert "利益" * 200 not in said


def test_every_number_is_recomputed_from_the_file(table: pa.Table, tmp_path: Path) -> None:
    agreed = table.set_column(table.column_names.index("agreement"), "agreement", pa.array([100, 66] * 300))
    marked = agreed.set_column(agreed.column_names.index("leak"), "leak", pa.array([None, None, "equal"] * 200))
    found = model(marked, 0.8, 3)
    write_predictions(tmp_path / "p.parquet", found)
    again = measure(read_predictions(tmp_path / "p.parquet"), POLARITY, PARAMS)
    assert again == measure(found, POLARITY, PARAMS)
    assert (again["n_without_leaks"], again["n_full_agreement"]) == (400, 300)
    for name in ("accuracy", "macro_f1", "nll", "brier", "auroc", "mcc", "ordinal_error"):
        assert again[f"{name}_low"] <= again[name] <= again[f"{name}_high"], name


def test_a_file_that_holds_no_predictions_is_named(tmp_path: Path, table: pa.Table) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, tmp_path / "p.parquet")
    with pytest.raises(DataError, match=r"p\.parquet: not the predictions of today's `evaluate`: no column predicted"):
        read_predictions(tmp_path / "p.parquet")
