"""What makes a row an example."""

import pytest

from finsight.domain.gates import outside
from finsight.domain.records import Example, Rejection, content_hash, examine, normalise

LABELS = ["negative", "positive"]


def test_hash_is_of_the_bytes() -> None:
    assert content_hash("") == "e3b0c44298fc1c149afbf4c8996fb924"  # the SHA-256 of nothing
    assert content_hash("a") != content_hash("A")


def test_normalise_joins_white_space_and_composes_accents() -> None:
    assert normalise("  net\tsales\n  Ko\u0308ln ") == "net sales Köln"


@pytest.mark.parametrize(
    ("text", "label", "split", "reason"),
    [
        (" \n", "positive", None, "empty text"),
        ("a\x00b", "positive", None, "NUL byte in the text"),
        ("x", "bullish", None, "label 'bullish' is not in ['negative', 'positive']"),
        ("x", "positive", "dev", "split 'dev' is not in ['train', 'validation', 'test']"),
    ],
)
def test_unfit_rows_are_rejected_with_the_reason(text: str, label: str, split: str | None, reason: str) -> None:
    found = examine(Example("c/f:2", text, label, "c", split), LABELS)
    assert isinstance(found, Rejection)
    assert (found.id, found.reason) == ("c/f:2", reason)
    assert text.strip() == "" or repr(text) in found.raw


def test_a_good_row_passes_unchanged() -> None:
    row = Example("c/f:2", "Profit rose", "positive", "c", "train", 100)
    assert examine(row, LABELS) is row


def test_limits() -> None:
    assert list(outside({"flips": 0.02}, {"flips": 0.02}, {"flips": 0.02})) == []
    assert list(outside({"flips": 0.03}, {"flips": 0.02})) == ["flips is 0.03, at most 0.02 is allowed"]
    assert list(outside({"flips": 0.03004}, {"flips": 0.03})) == ["flips is 0.03004, at most 0.03 is allowed"]
    assert list(outside({"flips": 0.03000004}, {"flips": 0.03})) == ["flips is 0.03000004, at most 0.03 is allowed"]
    assert list(outside({"right": 0.6}, {}, {"right": 0.7})) == ["right is 0.6, at least 0.7 is allowed"]
    assert list(outside({"flips": float("nan")}, {"flips": 0.02})) == ["flips is nan, at most 0.02 is allowed"]
    assert list(outside({"flips": "few"}, {"flips": 0.02})) == ["flips was not measured, at most 0.02 is allowed"]
    assert list(outside({}, {"flips": 0.02})) == ["flips was not measured, at most 0.02 is allowed"]
