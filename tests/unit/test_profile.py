"""A corpus in numbers."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from conftest import LABELS, REPO
from finsight.errors import ArtifactError, ParamsError
from finsight.params.file import load_params
from finsight.params.validate import ValidateParams
from finsight.pipeline import profile as module
from finsight.pipeline.language import foreign_to
from finsight.pipeline.profile import Profiles, read_profiles
from finsight.pipeline.raw import hash_numbers, take_rows
from raw_tables import raw_row, starter_table, write_raw

PARAMS = load_params(REPO / "params.yaml").validate_
NO_LANGUAGE = PARAMS.model_copy(update={"language": ""})


def profiles(path: Path, rows: list[dict[str, Any]], params: ValidateParams = NO_LANGUAGE, **kwargs: Any) -> Profiles:
    return read_profiles(write_raw(path / "corpus.parquet", rows, **kwargs), LABELS, params)


def test_each_thing_that_is_wrong_is_counted_and_its_first_rows_named(tmp_path: Path) -> None:
    rows = starter_table()
    rows[3]["text"] = None
    rows[5]["text"] = "  "
    rows[7]["text"] = "Up"
    rows[9]["text"] = "x" * 10_001
    rows[11]["label"] = "bullish"
    rows[13]["label"] = None
    rows[15]["hash"] = "0" * 31
    rows[16]["hash"] = "z" * 32
    rows[17]["hash"] = None
    rows[19]["text"] = "Sales of PÃ¤rnu rose"
    rows[21]["id"] = rows[20]["id"]
    rows[22] |= {"agreement": 75, "date": "2020-01-01T00:00:00"}
    found = profiles(tmp_path, rows)
    one = found.corpora["starter"]
    expected = {"missing": [3], "empty": [5], "short": [7], "long": [9], "unknown": [11, 13], "unhashed": [15, 16, 17], "damaged": [19]}
    assert {what: one.first[what] for what in expected} == expected
    assert {what: one.counts[what] for what in expected} == {what: len(at) for what, at in expected.items()}
    assert found.merged.first["unnamed"] == [20]
    assert found.ids[7] == "starter/rows.csv:9"
    assert one.longest == 10_001
    assert one.known == {"agreement": 1, "date": 1}
    assert sum(one.labels.values()) == 238


def test_repeats_and_conflicts_are_told_within_a_corpus_and_across_all(tmp_path: Path) -> None:
    rows = [
        *(raw_row(i, f"text number {i}", "neutral", "a") for i in range(10)),
        raw_row(10, "text number 3", "neutral", "a"),
        raw_row(11, "text number 4", "positive", "a"),
        raw_row(0, "text number 5", "neutral", "b"),
        raw_row(1, "text number 6", "negative", "b"),
        raw_row(2, "only here", "negative", "b"),
    ]
    found = profiles(tmp_path, rows)
    a, b, merged = found.corpora["a"], found.corpora["b"], found.merged
    assert (a.first["repeated"], a.first["conflicting"]) == ([10, 11], [4, 11])
    assert (b.counts["repeated"], b.counts["conflicting"]) == (0, 0)
    assert merged.counts["repeated"] == 4
    assert merged.first["conflicting"] == [4, 6, 11]
    assert merged.counts["conflicting"] == 4
    assert merged.labels == {"negative": 2, "neutral": 12, "positive": 1}
    assert sorted(found.distinct.tolist()) == [*range(10), 14]


def test_only_the_first_rows_are_kept_and_all_are_counted(tmp_path: Path) -> None:
    one = profiles(tmp_path, [raw_row(i, "the same text", "neutral") for i in range(50)]).corpora["starter"]
    assert one.counts["repeated"] == 49
    assert one.first["repeated"] == [1, 2, 3]


def test_many_row_groups_and_batches_give_what_one_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [*starter_table(120, "a"), *starter_table(240, "b"), raw_row(999, None, "bullish", "b")]
    whole = profiles(tmp_path, rows, PARAMS)
    monkeypatch.setattr(module, "BATCH", 17)
    parts = profiles(tmp_path, rows, PARAMS, row_group_size=50)
    assert list(whole.corpora) == list(parts.corpora) == ["a", "b"]
    for left, right in [*zip(whole.corpora.values(), parts.corpora.values(), strict=True), (whole.merged, parts.merged)]:
        assert left.kept() == right.kept()
        plain = [{k: v for k, v in asdict(one).items() if not isinstance(v, np.ndarray)} for one in (left, right)]
        assert plain[0] == plain[1]
    assert whole.distinct.tolist() == parts.distinct.tolist()
    assert whole.ids == parts.ids


def test_histograms_hold_every_text_and_word(tmp_path: Path) -> None:
    one = profiles(tmp_path, [raw_row(0, "Profit rose, again.", "positive"), raw_row(1, "profit ROSE – again", "positive")]).corpora[
        "starter"
    ]
    assert one.lengths.tolist()[:3] == [0, 2, 0]  # the dash counts for the length
    assert one.lengths.sum() == 2
    assert sorted(one.words[one.words > 0].tolist()) == [2, 2, 2]


def test_a_sample_of_texts_does_not_depend_on_their_order(tmp_path: Path) -> None:
    rows = starter_table()
    first = profiles(tmp_path, rows)
    turned = profiles(tmp_path, rows[::-1])
    texts = [row["text"] for row in rows]
    assert {texts[i] for i in first.distinct[:20]} == {texts[::-1][i] for i in turned.distinct[:20]}


def test_hashes_become_numbers_and_what_is_none_is_marked() -> None:
    good = "0123456789abcdef" + "f" * 16
    found = hash_numbers(pa.array([good, None, "short", "G" * 32, good.upper()]))
    assert found[0].tolist() == [0x0123456789ABCDEF, 0xFFFFFFFFFFFFFFFF, 0]
    assert found[:, 2].tolist() == [0, 1, 1, 1, 1]
    assert hash_numbers(pa.array([], pa.string())).shape == (0, 3)


def test_rows_are_taken_by_number_across_row_groups(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "corpus.parquet", starter_table(), row_group_size=50)
    taken = take_rows(path, [0, 49, 50, 239], ["id"])["id"].to_pylist()
    assert taken == [f"starter/rows.csv:{i}" for i in (2, 51, 52, 241)]
    assert take_rows(path, [], ["id", "text"]).num_rows == 0


def test_texts_in_another_language_are_found(tmp_path: Path) -> None:
    rows = starter_table(80)
    german = "Der Gewinn des Unternehmens ist im dritten Quartal deutlich gestiegen"
    rows += [raw_row(80, german, "positive"), raw_row(81, "该公司第三季度的净利润大幅增长", "positive")]
    one = profiles(tmp_path, rows, PARAMS).corpora["starter"]
    assert one.first["foreign"] == [80, 81]
    assert one.sampled == 82
    assert one.foreign_share == pytest.approx(2 / 82)
    assert "foreign" not in profiles(tmp_path, rows, NO_LANGUAGE).corpora["starter"].counts


def test_at_most_the_sample_is_looked_at(tmp_path: Path) -> None:
    found = profiles(tmp_path, starter_table(), PARAMS.model_copy(update={"language_sample": 30}))
    assert found.corpora["starter"].sampled == 30


def test_short_texts_and_names_are_in_no_language() -> None:
    foreign = foreign_to("en")
    assert not any(map(foreign, ["Nokia Oyj", "", "Q3 EPS 1.12 vs 1.08", "Der Gewinn steigt"]))
    assert foreign("Les ventes de la société ont fortement augmenté au deuxième trimestre")


def test_an_unknown_language_names_the_known_ones() -> None:
    with pytest.raises(ParamsError, match=r"validate.language: got 'xx', expected one of .*, en, .*switch the check off"):
        foreign_to("xx")


def test_an_empty_table_has_an_empty_profile(tmp_path: Path) -> None:
    found = profiles(tmp_path, [])
    assert (found.corpora, found.merged.rows, len(found.distinct)) == ({}, 0, 0)


def test_a_missing_or_damaged_table_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"none.parquet: no such file; `dvc repro` writes it"):
        read_profiles(tmp_path / "none.parquet", LABELS, PARAMS)
    path = write_raw(tmp_path / "corpus.parquet", starter_table())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="not a whole Parquet file"):
        read_profiles(path, LABELS, PARAMS)
