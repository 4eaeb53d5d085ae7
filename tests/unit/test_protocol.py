"""The stamp that says what a score means."""

import pytest

from finsight.domain.protocol import in_words, protocol, trained_on

NO_LEAKS = {"equal": 0, "near": 0}


@pytest.mark.parametrize(
    ("train", "test", "kind"),
    [(["a"], ["a"], "in-domain"), (["a", "b"], ["a"], "in-domain"), (["a"], ["b"], "held-out"), (["a"], ["a", "b"], "mixed")],
)
def test_kind(train: list[str], test: list[str], kind: str) -> None:
    assert protocol(train, test, {}, {}, NO_LEAKS, [])["kind"] == kind


def test_a_backbone_that_saw_the_test_corpus_is_contaminated_whatever_the_corpus_is_called_here() -> None:
    stamp = protocol(["mine"], ["fpb"], {"fpb": "phrasebank", "mine": None}, {"fpb": "held out"}, {"equal": 1, "near": 7}, ["phrasebank"])
    assert stamp["contaminated"] == ["fpb"]
    assert in_words(stamp) == (
        "held-out (fpb: held out); 7 test rows near-equal to a train row; CONTAMINATED: the backbone was trained on fpb"
    )
    clean = protocol(["mine"], ["fpb"], {"fpb": "phrasebank"}, {}, NO_LEAKS, ["fiqa"])
    assert clean["contaminated"] == []


@pytest.mark.parametrize("name", ["ProsusAI/finbert", "prosusai/finbert@" + "0" * 40])
def test_published_models_are_known_by_their_id(name: str) -> None:
    assert trained_on(name) == ("phrasebank",)


def test_others_are_not() -> None:
    assert trained_on("google-bert/bert-base-uncased") == ()
    assert trained_on("") == ()
