"""The report and the model card, from what a finished pipeline wrote."""

import csv
import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from conftest import Project, write_csv
from finsight.errors import ArtifactError
from finsight.params.file import flatten, load_params
from finsight.pipeline.report import report


@pytest.fixture
def reports(finished: Project, tmp_path: Path) -> Path:
    """A private copy of the reports."""
    return Path(shutil.copytree(finished.root / "reports", tmp_path / "reports"))


def written(finished: Project, reports: Path) -> tuple[str, str]:
    """The page and the card of these reports."""
    settings = flatten(load_params(finished.root / "params.yaml"))
    page, card = reports / "page.html", reports / "card.md"
    report(reports, finished.root / "models/bundle", "finsight", settings, page, card)
    return page.read_text(), card.read_text()


def change(path: Path, **values: Any) -> None:
    """Set keys of a JSON file; dots of a nested one are written as ``__``."""
    content = json.loads(path.read_text())
    for key, value in values.items():
        *parents, last = key.split("__")
        section = content
        for name in parents:
            section = section[name]
        section[last] = value
    path.write_text(json.dumps(content))


def test_the_page_stands_alone_and_says_what_was_measured(finished: Project, reports: Path) -> None:
    page, _ = written(finished, reports)
    assert page == (finished.root / "reports/report.html").read_text(), "as the stage wrote it"
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert set(re.findall(r'(?:src|href)="([^"#][^"]*)"', page)) == set(), "nothing is fetched"
    assert set(re.findall(r"url\((?!#)[^)]*\)", page)) == set()
    metrics = json.loads((reports / "metrics.json").read_text())
    for name in ("accuracy", "macro_f1", "ece", "mcc", "kappa", "adaptive_ece", "macro_f1_low", "macro_f1_high"):
        assert f"{metrics[name]:.3f}" in page, name
    for name in ("nll", "brier", "ece", "adaptive_ece"):
        before, after = metrics["calibration"][f"{name}_before"], metrics[name]
        assert f'<td class="n">{before:.3f}</td><td class="n">{after:.3f}</td>' in page, name
    assert page.count("<svg") == 5
    assert all(f'id="{part}"' in page for part in ("slices", "behaviour", "mistakes", "data", "lineage", "plot-confusion", "plot-lengths"))
    assert all(test in page for test in metrics["behaviour"])
    assert json.loads((reports / "train.json").read_text())["checkpoint_sha256"] in page
    assert json.loads((reports / "export.json").read_text())["bundle_sha256"] in page
    assert 'name="viewport"' in page


def test_texts_of_others_are_shown_as_texts(finished: Project, reports: Path) -> None:
    evil = "<script>alert(1)</script>"
    with (reports / "mistakes.csv").open(newline="") as file:
        columns = next(csv.reader(file))
    row = dict.fromkeys(columns, "") | {"label": "negative", "predicted": "positive", "confidence": "0.9", "text": evil}
    write_csv(reports / "mistakes.csv", [row | {"near_1_text": evil, "words": json.dumps([[evil, 0.4]])}])
    change(reports / "metrics.json", behaviour={evil: 0.5}, behaviour_cases={evil: 4})
    sliced = {"rows": 99, "few": False, "accuracy": 0.1, "macro_f1": 0.1, "confused": {}}
    change(reports / "slices.json", **{f"kind {evil} [click](http://x.example) | x": sliced})
    page, card = written(finished, reports)
    assert "http://x" not in html.unescape(card)
    assert evil not in card
    assert "kind &lt;script&gt;" in card
    assert evil not in page
    assert page.count("&lt;script&gt;") >= 3
    assert "rgba(220,38,38,0.40)" in page


def test_what_a_reader_must_not_miss_is_red(finished: Project, reports: Path) -> None:
    change(reports / "metrics.json", baselines__linear__low=-0.02)
    change(reports / "metrics.json", protocol__contaminated=["phrasebank"])
    page, card = written(finished, reports)
    assert "The linear baseline is not beaten" in page
    assert 'class="stamp bad"' in page
    assert "CONTAMINATED" in page
    assert "**not beaten**" in card
    assert "**has seen the test corpus** (phrasebank)" in card


def test_what_pruning_cost_is_said(finished: Project, reports: Path) -> None:
    assert 'id="pruned"' not in written(finished, reports)[0]
    cost = {"before": 0.812, "pruned": 0.534, "recovered": 0.798}
    parts = {"layers": 2, "heads_of_a_layer": 6, "neurons_of_a_layer": 512, "zeros_in_the_layers": 1_230_000}
    sizes = {"parameters_before": 22_713_216, "parameters_after": 15_210_000, "best_epoch": 1, "epochs": 2}
    change(reports / "train.json", prune=parts | sizes | {f"validation_macro_f1_{name}": value for name, value in cost.items()})
    page, card = written(finished, reports)
    assert "from 22.7 to 15.2 million parameters (2 layers; of each other one 6 heads and 512 neurons; 1.2 million weights" in page
    assert "0.812 before, 0.534 after, 0.798 when epoch 1 of 2 had recovered it" in page
    assert "pruned from 22.7 to 15.2 million parameters" in card


def test_a_model_that_never_reaches_the_wanted_precision_has_no_threshold(finished: Project, reports: Path) -> None:
    path = reports / "metrics.json"
    content = json.loads(path.read_text())
    for name in ("abstain_below", "coverage", "accuracy_answered"):
        content["calibration"].pop(name, None)
    path.write_text(json.dumps(content))
    page, _ = written(finished, reports)
    assert "answers when sure" not in page


def test_a_threshold_that_no_test_row_reaches_says_nothing(finished: Project, reports: Path) -> None:
    path = reports / "metrics.json"
    content = json.loads(path.read_text())
    content["calibration"] |= {"abstain_below": 0.99, "coverage": 0.0}
    content["calibration"].pop("accuracy_answered", None)
    path.write_text(json.dumps(content))
    _, card = written(finished, reports)
    assert "of the answers were right" not in card


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("mistakes.csv", b"a,b\n1,2\n", "one is not as `dvc repro` writes it ('words')"),
        ("mistakes.csv", b"words\n\xe9\n", "mistakes.csv: not the CSV that `dvc repro` writes there"),
        ("plots/curves.csv", b"epoch,loss\n1\n", "curves.csv: rows have other columns than the head"),
        ("plots/curves.csv", b"epoch\none\n", "curves.csv: not the numbers that `dvc repro` writes there"),
        ("metrics.json", b"{}", "one is not as `dvc repro` writes it"),
    ],
)
def test_a_file_that_was_changed_is_one_line_and_nothing_is_written(
    finished: Project, reports: Path, name: str, content: bytes, says: str
) -> None:
    (reports / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=re.escape(says)):
        written(finished, reports)
    assert not (reports / "page.html").exists()
    assert not (reports / "card.md").exists()


def test_the_user_s_style_and_names_with_a_dollar_change_nothing(finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib
    import numpy as np

    from finsight.pipeline import drawing

    def drawn() -> str:
        return drawing.svg(drawing.confusion(["a", "b"], np.eye(2, dtype=int), "base: feature/$x_$"))

    expected = drawn()
    monkeypatch.setitem(matplotlib.rcParams, "axes.linewidth", 5.0)
    assert drawn() == expected


def test_the_card_is_one_that_the_hub_can_read(finished: Project, reports: Path) -> None:
    _, text = written(finished, reports)
    assert text == (finished.root / "reports/model_card.md").read_text(), "as the stage wrote it"
    card = ModelCard(text)
    metrics = json.loads((reports / "metrics.json").read_text())
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found["accuracy"] == pytest.approx(metrics["accuracy"], abs=1e-4)
    assert found["f1"] == pytest.approx(metrics["macro_f1"], abs=1e-4)
    assert (card.data.language, card.data.pipeline_tag, card.data.datasets) == ("en", "text-classification", ["starter"])
    assert card.data.license
    for heading in ("What it is for", "How good it is", "Where it fails", "What it was trained on"):
        assert f"## {heading}\n" in text


@pytest.mark.parametrize("name", ["slices.json", "mistakes.csv", "plots/lengths.csv"])
def test_a_missing_report_is_named(finished: Project, reports: Path, name: str) -> None:
    (reports / name).unlink()
    with pytest.raises(ArtifactError, match=re.escape(name.rpartition("/")[2])):
        written(finished, reports)
    assert not (reports / "page.html").exists()


def test_a_damaged_plot_is_named(finished: Project, reports: Path) -> None:
    (reports / "plots/coverage.csv").write_text("coverage,accuracy,threshold\nx,y,z\n")
    with pytest.raises(ArtifactError, match=r"coverage\.csv: not the numbers"):
        written(finished, reports)
