"""What a transformer has to beat."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import f1_score

from conftest import LABELS, REPO, starter_rows
from finsight.domain.lexicon import NEGATIVE, POSITIVE, tone
from finsight.params.file import load_params
from finsight.pipeline.baselines import baselines
from finsight.pipeline.explain import explain
from finsight.pipeline.mistakes import mistakes
from finsight.pipeline.predictions import Predictions, measure, predictions

POLARITY = {"negative": -1.0, "neutral": 0.0, "positive": 1.0}


def answered(texts: list[str], actual: list[int], predicted: list[int], confidence: list[float]) -> Predictions:
    n = len(texts)
    content = {"id": [f"x:{i}" for i in range(n)], "hash": [f"{i}" for i in range(n)], "corpus": ["a"] * n, "text": texts}
    content |= {"agreement": [None] * n, "leak": [None] * n, "near_group": [f"{i}" for i in range(n)], "label": [LABELS[a] for a in actual]}
    probs = np.full((n, 3), 0.0)
    for i, (label, sure) in enumerate(zip(predicted, confidence, strict=True)):
        probs[i] = (1 - sure) / 2
        probs[i, label] = sure
    return predictions(Path("t"), pa.table(content), LABELS, probs)


def test_mistakes_stand_beside_what_they_resemble() -> None:
    learned = pa.table(
        {
            "text": ["Net loss narrowed in May", "Net loss widened in June", "The board meets in Oslo", "=board(1)"],
            "label": ["positive", "negative", "neutral", "neutral"],
        }
    )
    texts = ["Net loss narrowed again", "Profit fell", "The board meets", "=board meets"]
    model = answered(texts, [2, 0, 1, 0], [0, 0, 0, 1], [0.6, 0.9, 0.8, 0.7])
    found = mistakes(model, learned, lambda asked: np.array([["meets" in text, 0.0, 0.5] for text in asked]))
    assert [row["id"] for row in found] == ["x:2", "x:3", "x:0"], "the surest first, the right one left out"
    assert (found[0]["label"], found[0]["predicted"], found[0]["confidence"]) == ("neutral", "negative", "0.8000")
    assert found[0]["near_1_text"] == "The board meets in Oslo"
    assert found[2]["near_1_text"] == "Net loss narrowed in May"
    assert found[2]["near_1_label"] == "positive"
    assert float(found[2]["near_1_likeness"]) > float(found[2]["near_2_likeness"]) > 0
    assert found[1]["text"] == "'=board meets", "no formula for a spreadsheet"
    assert json.loads(found[0]["words"]) == [["The", 0.0], ["board", 0.0], ["meets", 1.0]], "for the wrong label"
    assert mistakes(answered(texts[:1], [2], [2], [0.9]), learned, lambda asked: np.zeros((len(asked), 3))) == []


def test_a_word_weighs_what_the_label_loses_without_it() -> None:
    def probs(texts: Sequence[str]) -> np.ndarray:
        rose = np.array([0.2 + 0.5 * ("rose" in text) - 0.1 * ("not" in text) for text in texts])
        return np.stack([1 - rose, rose], axis=1)

    first, second, third = explain(probs, ["Profit  rose", "It has not rose", ""])
    assert (first.label, first.probability) == (1, pytest.approx(0.7))
    assert [(word.text, round(word.effect, 6)) for word in first.words] == [("Profit", 0.0), ("rose", 0.5)]
    assert [round(word.effect, 6) for word in second.words] == [0.0, 0.0, -0.1, 0.5]
    assert third.words == []
    (against,) = explain(probs, ["Profit rose"], label=0)
    assert [round(word.effect, 6) for word in against.words] == [0.0, -0.5]
    assert explain(probs, []) == []


def test_what_the_model_has_more_than_a_baseline() -> None:
    rng = np.random.default_rng(0)
    actual = rng.integers(0, 3, 300).tolist()
    wrong = [(a + (i % 10 == 0)) % 3 for i, a in enumerate(actual)]
    found = answered(["x"] * 300, actual, wrong, [0.9] * 300).beside({"linear": [LABELS[a] for a in actual], "majority": ["neutral"] * 300})
    params = load_params(REPO / "params.yaml").evaluate.model_copy(update={"primary": "nll", "bootstrap_resamples": 1000})
    got = measure(found, {}, params)["baselines"]
    assert got["linear"]["accuracy"] == 1.0
    assert got["linear"]["model_has_more"] == pytest.approx(f1_score(actual, wrong, average="macro") - 1)
    assert got["linear"]["low"] < got["linear"]["model_has_more"] < got["linear"]["high"] < 0
    assert got["majority"]["low"] > 0
    assert got["majority"]["macro_f1"] == pytest.approx(f1_score(actual, [1] * 300, average="macro"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Profit rose", 1.0),
        ("Sales fell and the outlook is weak", -1.0),
        ("Profit fell", 0.0),
        ("The company did not grow", -1.0),
        ("It hasn’t been a bad year", 1.0),
        ("The annual meeting is in Espoo", 0.0),
        ("", 0.0),
        ("PROFIT ROSE 4 %", 1.0),
        ("Not until the end of the year was there any growth", 1.0),  # too far away
    ],
)
def test_the_tone_of_a_text(text: str, expected: float) -> None:
    assert tone(text) == expected


def test_no_word_is_good_and_bad() -> None:
    assert set() == POSITIVE & NEGATIVE


def test_each_baseline_answers_each_text() -> None:
    rows = starter_rows(240)
    learned, asked = rows[:200], rows[200:]
    texts, labels = [row["text"] for row in learned], [row["label"] for row in learned]
    found = baselines(texts, labels, [row["text"] for row in asked], LABELS, POLARITY)
    assert list(found) == ["majority", "lexicon", "linear"]
    assert all(len(answers) == 40 and set(answers) <= set(LABELS) for answers in found.values())
    assert set(found["majority"]) == {max(LABELS, key=labels.count)}
    assert baselines(texts, labels, texts, LABELS, POLARITY)["linear"] != found["majority"] * 5
    right = sum(a == b for a, b in zip(baselines(texts, labels, texts, LABELS, POLARITY)["linear"], labels, strict=True))
    assert right > 180, "it has seen these"


def test_without_an_order_there_is_no_lexicon() -> None:
    assert list(baselines(["a b", "b c"], ["x", "y"], ["b"], ["x", "y"], {})) == ["majority", "linear"]


def test_texts_without_a_common_word_leave_the_most_frequent_label() -> None:
    assert baselines(["one", "two", "three"], ["x", "y", "y"], ["four"], ["x", "y"], {})["linear"] == ["y"]


def test_one_label_alone_needs_no_linear_model() -> None:
    assert list(baselines(["a b", "a c"], ["x", "x"], ["a"], ["x", "y"], {})) == ["majority"]
