"""Behavioural tests: what they ask, and what counts as a failure."""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest

from conftest import LABELS, REPO, starter_rows
from finsight.domain.behaviour import CHANGES, filled
from finsight.errors import DataError
from finsight.pipeline.behaviour import Suite, behave, read_suite

POLARITY = {"negative": -1.0, "neutral": 0.0, "positive": 1.0}


def reads_words(texts: Sequence[str]) -> np.ndarray:
    """A model that knows two words, and cares for capitals."""
    rose, fell = (np.array([word in text for text in texts], dtype=float) for word in ("rose", "fell"))
    return np.stack([0.1 + 0.5 * fell, np.full(len(texts), 0.2), 0.1 + 0.5 * rose], axis=1) / 1.0


def asked(
    *tests: dict[str, object], slots: dict[str, list[str]] | None = None, rows: Sequence[str] = (), polarity: dict[str, float] = POLARITY
):
    suite = Suite.model_validate({"slots": slots or {}, "tests": list(tests)})
    return behave(reads_words, suite, LABELS, polarity, rows, 10, seed=1)


def test_slots_are_filled_in_each_combination_and_alike_in_a_pair() -> None:
    slots = {"who": ["A", "B"], "what": ["x", "y"]}
    assert [text for (text,) in filled(["{who} has {what}"], slots)] == ["A has x", "B has x", "A has y", "B has y"]
    assert list(filled(["{who}", "{who} again"], slots)) == [("A", "A again"), ("B", "B again")]
    assert list(filled(["nothing"], slots)) == [("nothing",)]


def test_a_text_must_get_its_label() -> None:
    found = asked(
        {"name": "t", "kind": "minimum", "label": "positive", "texts": ["Profit {way}"]}, slots={"way": ["rose", "climbed", "fell"]}
    )
    assert found.rates == {"t": pytest.approx(2 / 3)}
    assert [(f["text"], f["expected"], f["got"]) for f in found.failures] == [
        ("Profit climbed", "positive", "neutral"),
        ("Profit fell", "positive", "negative"),
    ]


def test_what_is_filled_in_must_not_matter() -> None:
    found = asked({"name": "t", "kind": "invariance", "texts": ["{who} met"]}, slots={"who": ["A", "B", "the rose club"]})
    assert found.rates == {"t": 0.5}
    (failure,) = found.failures
    assert (failure["beside"], failure["text"], failure["expected"], failure["got"]) == (
        "A met",
        "the rose club met",
        "neutral",
        "positive",
    )


def test_a_change_of_test_rows_must_not_matter() -> None:
    rows = ["Profit rose", "PROFIT WAS FLAT", "Sales were flat"]
    found = asked({"name": "capitals", "kind": "invariance", "change": "upper"}, rows=rows)
    assert found.rates == {"capitals": 0.5}, "of two rows that the change changes"
    assert [f["text"] for f in found.failures] == ["PROFIT ROSE"]
    assert asked({"name": "t", "kind": "invariance", "change": "upper"}, rows=[f"row {i}" for i in range(50)]).rates == {"t": 0}


def test_a_pair_must_move_in_the_direction() -> None:
    pairs = [["Sales were flat", "Sales were flat and profit fell"], ["Sales fell", "Sales fell again"], ["Sales fell", "Sales rose"]]
    found = asked({"name": "t", "kind": "direction", "expect": "down", "pairs": pairs})
    assert [(f["expected"], f["got"]) for f in found.failures] == [("down", "the same"), ("down", "up")]


def test_tests_of_one_name_count_together() -> None:
    one = {"name": "t", "kind": "minimum", "label": "positive", "texts": ["It rose"]}
    found = asked(one, {**one, "label": "negative"})
    assert (found.rates, found.cases) == ({"t": 0.5}, {"t": 2})


def test_what_a_model_does_not_have_is_left_out_and_said() -> None:
    hawks = {"name": "rates", "kind": "minimum", "label": "hawkish", "texts": ["They raised rates"]}
    down = {"name": "worse", "kind": "direction", "expect": "down", "pairs": [["a", "b"]]}
    found = asked(hawks, down, polarity={})
    assert (found.rates, found.left_out) == ({}, ["rates", "worse"])


@pytest.mark.parametrize(
    ("change", "text", "expected"),
    [
        ("upper", "Profit rose", "PROFIT ROSE"),
        ("lower", "Profit rose", "profit rose"),
        ("numbers", "It rose 4 % and 5 %", "It rose 4 % and 5 %"),
        ("numbers", "It was founded in 1987", "It was founded in 1987"),
        ("numbers", "No number", "No number"),
        ("numbers", "It rose to 5mn from 3 mn", "It rose to 5mn from 3 mn"),
        ("numbers", "It fell to 0 from EUR13.1mn", "It fell to 0 from EUR13.1mn"),
        ("numbers", "The A320 flew", "The A320 flew"),
        ("typo", "A cat sat", "A cat sat"),
    ],
)
def test_changes(change: str, text: str, expected: str) -> None:
    assert CHANGES[change](text, Random(1)) == expected


@pytest.mark.parametrize("seed", range(20))
def test_changes_by_chance_keep_what_matters(seed: int) -> None:
    typed = CHANGES["typo"]("Quarterly profit rose", Random(seed))
    assert sorted(typed) == sorted("Quarterly profit rose")
    assert sum(a != b for a, b in zip(typed, "Quarterly profit rose", strict=True)) in (0, 2)
    other = CHANGES["numbers"]("Profit rose 12.5 %", Random(seed))
    assert other != "Profit rose 12.5 %"
    assert len(other) == len("Profit rose 12.5 %")
    assert CHANGES["prefix"]("x", Random(seed)).endswith("x")


def test_the_suite_that_ships_can_be_asked() -> None:
    suite = read_suite(REPO / "data/behaviour")
    found = behave(reads_words, suite, LABELS, POLARITY, [row["text"] for row in starter_rows(80)], 10, seed=0)
    assert len(found.rates) >= 15
    asked_by_template = {test.name for test in suite.tests if not test.change}
    assert min(found.cases[name] for name in asked_by_template) >= 20, "fewer say nothing of a rate"
    assert found.left_out == []
    assert {test.kind for test in suite.tests} == {"minimum", "invariance", "direction"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("tests: [{name: t, kind: minimum, texts: [a]}]", r"tests\.0: t: minimum needs label and texts, got \['texts'\]"),
        ("tests: [{name: t, kind: nosuch}]", r"tests\.0\.kind: Input should be"),
        ("tests: [{name: t, kind: minimum, label: positive, texts: ['{who}']}]", "test 't' names the slot 'who', which is not under slots"),
        ("tests: [", "not valid YAML"),
        ("test: []", "tests: Field required"),
        ("tests: [{name: t, kind: invariance, texts: [A rose]}]", "test 't': 'A rose' makes one text only"),
        ("slots: {who: [A, C]}\ntests: []", r"mine\.yaml: the slot 'who' has other words in another file"),
    ],
)
def test_a_file_that_is_no_suite_is_one_line(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "a.yml").write_text("slots: {who: [A, B]}\ntests: []\n" if "slots" in content else "tests: []\n")
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(DataError, match=says):
        read_suite(tmp_path)


def test_no_suite_at_all_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no behavioural tests there"):
        read_suite(tmp_path / "nowhere")


def test_files_share_their_slots(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("slots: {who: [A, B]}\ntests: []\n")
    (tmp_path / "b.yaml").write_text("tests: [{name: t, kind: invariance, texts: ['{who} met']}]\n")
    assert len(read_suite(tmp_path).tests) == 1
