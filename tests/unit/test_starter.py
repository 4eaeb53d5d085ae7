"""The starter corpus is what its data card says."""

import csv
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from conftest import LABELS, REPO
from finsight.domain.dedup import equal_pairs, groups, min_hashes, near_groups
from finsight.domain.records import normalise
from finsight.pipeline.words import features, split_words

FILES = sorted((REPO / "data/starter").glob("*.csv"))
CARD = (REPO / "data/README.md").read_text()


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict[str, str]]]:
    found = {}
    for path in FILES:
        with path.open(encoding="utf-8", newline="") as file:
            found[path.name] = list(csv.DictReader(file, strict=True))
    return found


def test_the_card_counts_every_file_label_kind_and_difficulty(rows: dict[str, list[dict[str, str]]]) -> None:
    everything = [row for file in rows.values() for row in file]
    assert f"{len(everything):,} financial texts" in CARD
    for name, file in rows.items():
        assert re.search(rf"\| `{name}` \| .* \| {len(file)} \|", CARD), name
    for column in ("label", "kind", "difficulty"):
        for value, n in Counter(row[column] for row in everything).items():
            assert re.search(rf"`{value}` \({n:,}\b", CARD), f"{value}: {n}"


def test_labels_are_balanced_and_no_text_comes_twice(rows: dict[str, list[dict[str, str]]]) -> None:
    everything = [row for file in rows.values() for row in file]
    texts = Counter(re.sub(r"\W+", " ", row["text"]).casefold() for row in everything)
    assert not [text for text, n in texts.items() if n > 1]
    shares = {label: sum(row["label"] == label for row in everything) / len(everything) for label in LABELS}
    assert {row["label"] for row in everything} == set(LABELS)
    assert all(0.25 <= share <= 0.45 for share in shares.values()), shares


def test_hardly_a_row_shares_six_words_with_another(rows: dict[str, list[dict[str, str]]]) -> None:
    runs: dict[tuple[str, ...], set[str]] = defaultdict(set)
    everything = [row["text"] for file in rows.values() for row in file]
    for text in everything:
        words = re.findall(r"\w+", text.casefold())
        for i in range(len(words) - 5):
            runs[tuple(words[i : i + 6])].add(text)
    sharing = {text for texts in runs.values() if len(texts) > 1 for text in texts}
    assert len(sharing) / len(everything) < 0.01


def test_nothing_of_it_is_a_near_duplicate_of_the_phrasebank(rows: dict[str, list[dict[str, str]]], phrasebank: Path) -> None:
    ours = [normalise(row["text"]) for file in rows.values() for row in file]
    lines = (phrasebank / "Sentences_50Agree.txt").read_bytes().decode("latin-1").split("\r\n")
    public = [normalise(line.rpartition("@")[0]) for line in lines if line]
    texts = ours + public
    sets, offsets, in_order = features(split_words(pa.array(texts)))
    root = groups(equal_pairs(in_order), np.arange(len(texts)))
    found = near_groups(root, *min_hashes(sets, offsets), sets, offsets, 0.7)
    shared = set(found[: len(ours)].tolist()) & set(found[len(ours) :].tolist())
    assert not shared, [texts[i] for i in shared]
