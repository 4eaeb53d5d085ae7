"""What a reader must know before a score means anything: what was trained on, what was tested on, and whether one knew the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Published models and the labelled corpora that their cards say they were fine-tuned on. A test on one of these corpora says little
# when such a model is the backbone. By hub id in lower case; a backbone of the user's own states its own under backbones.X.trained_on.
TRAINED_ON: Mapping[str, tuple[str, ...]] = {
    "prosusai/finbert": ("phrasebank",),
    "ahmedrachid/financialbert-sentiment-analysis": ("phrasebank",),
    "mrm8488/distilroberta-finetuned-financial-news-sentiment-analysis": ("phrasebank",),
    "mrm8488/deberta-v3-ft-financial-news-sentiment-analysis": ("phrasebank",),
    "sigma/financial-sentiment-analysis": ("phrasebank",),
    "nickmuchi/sec-bert-finetuned-finance-classification": ("phrasebank",),
    "nickmuchi/deberta-v3-base-finetuned-finance-text-classification": ("phrasebank",),
    "nickmuchi/finbert-tone-finetuned-fintwitter-classification": ("twitter-financial-news",),
    "stephanakkerman/fintwitbert-sentiment": ("twitter-financial-news",),
}


def trained_on(model: str) -> tuple[str, ...]:
    """The labelled corpora that a published model is known to have been trained on; none for one that is not listed."""
    return TRAINED_ON.get(model.lower().partition("@")[0].strip("/"), ())


def protocol(
    train: Sequence[str],
    test: Sequence[str],
    known_as: Mapping[str, str | None],
    splits: Mapping[str, str],
    leaks: Mapping[str, int],
    backbone_trained_on: Sequence[str],
) -> dict[str, Any]:
    """The stamp that travels from ``prepare`` into the metrics, the bundle and the registry.

    :param train: corpora with rows in train; ``test`` likewise.
    :param known_as: corpus → its name in the literature, which is what backbones are known by.
    :param splits: corpus → how it was split.
    :param leaks: test rows that stand in train: ``equal``, and ``near`` with the near-duplicates.
    """
    overlap = set(train) & set(test)
    kind = "in-domain" if set(test) <= set(train) else "mixed" if overlap else "held-out"
    contaminated = sorted({corpus for corpus in test if known_as.get(corpus) in backbone_trained_on or corpus in backbone_trained_on})
    return {
        "kind": kind,
        "train": sorted(train),
        "test": sorted(test),
        "split": dict(splits),
        "leaks": dict(leaks),
        "backbone_trained_on": sorted(backbone_trained_on),
        "contaminated": contaminated,
    }


def in_words(stamp: Mapping[str, Any]) -> str:
    """The stamp in one line."""
    split = ", ".join(f"{corpus}: {how}" for corpus, how in sorted(stamp["split"].items()))
    leaks = f"{stamp['leaks']['near']} test rows near-equal to a train row" if stamp["leaks"]["near"] else "no leaks"
    words = f"{stamp['kind']} ({split}); {leaks}"
    if stamp["contaminated"]:
        words += f"; CONTAMINATED: the backbone was trained on {', '.join(stamp['contaminated'])}"
    return words
