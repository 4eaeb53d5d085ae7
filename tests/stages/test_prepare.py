"""Prepare as a use case: what belongs together stays together, leaks are told, tokens are kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import LABELS, REPO, starter_rows
from finsight.domain.records import SPLITS
from finsight.errors import ArtifactError, DataError
from finsight.modeling.tokens import TextTokenizer
from finsight.params.file import load_params
from finsight.params.prepare import PrepareParams
from finsight.pipeline.evaluate import Written, evaluate
from finsight.pipeline.prepare import prepare
from finsight.pipeline.tables import read_rows, read_tokens
from finsight.ports import Backbone
from raw_tables import raw_row, starter_table, write_raw

Row = dict[str, Any]
SPLIT = {"method": "stratified", "own": True, "validation": 0.1, "test": 0.2, "folds": 4, "fold": 0, "held_out": [], "seed": 42}
PARAMS = {"max_length": 64, "engine": "local", "workers": None}
# What a wire copy looks like: another figure, another company, a word more.
COPY = "{name} said on Monday that its orders rose {n} % and that it keeps its dividend and its outlook for the year"


@pytest.fixture
def run(tiny_backbone: Path, tmp_path: Path) -> Callable[..., tuple[dict[str, Any], dict[str, list[Row]]]]:
    """Run prepare on rows; return its report and the rows of each split."""

    def run(
        rows: Sequence[Row],
        known_as: dict[str, str] | None = None,
        trained_on: tuple[str, ...] = (),
        groups: int | None = None,
        texts: Sequence[Row] = (),
        **split: Any,
    ) -> tuple[dict[str, Any], dict[str, list[Row]]]:
        corpus = write_raw(tmp_path / "corpus.parquet", rows, groups)
        unlabelled = write_raw(tmp_path / "unlabelled.parquet", [{**row, "label": ""} for row in texts])
        params = PrepareParams.model_validate({**PARAMS, "near_duplicates": 0.7, "split": {**SPLIT, **split}})
        backbone = Backbone("tiny", tiny_backbone, "0" * 64, "MIT", trained_on)
        folders = (tmp_path / "cache", tmp_path / "out", tmp_path / "r.json", tmp_path / "lengths.csv")
        report = prepare(corpus, unlabelled, LABELS, known_as or {}, params, backbone, *folders)
        return report, {s: with_tokens(tmp_path / f"out/{s}.parquet") for s in (*SPLITS, "unlabelled")}

    return run


def with_tokens(path: Path) -> list[Row]:
    """The rows of a split, with the token ids that stand beside them."""
    rows, tokens = pq.read_table(path).to_pylist(), read_tokens(path.with_suffix(".arrow"))
    return [row | {"input_ids": ids.tolist()} for row, ids in zip(rows, tokens, strict=True)]


def copies(n: int, corpus: str = "starter", start: int = 0, **more: Any) -> list[Row]:
    names = ("Anvora Oyj", "Belmar AG", "Corvin Inc", "Dunmore Plc", "Elgar SpA")
    return [raw_row(1000 + start + i, COPY.format(name=names[i % 5], n=start + i), LABELS[i % 3], corpus, **more) for i in range(n)]


def where(splits: dict[str, list[Row]], key: str) -> dict[Any, set[str]]:
    """Value of a column → the splits that have it."""
    found: dict[Any, set[str]] = defaultdict(set)
    for split, rows in splits.items():
        for row in rows:
            found[row[key]].add(split)
    return found


def dated(rows: list[Row]) -> list[Row]:
    return [{**row, "date": f"2024-{1 + i % 12:02}-{1 + i % 28:02}T00:00:00+00:00"} for i, row in enumerate(rows)]


@pytest.mark.parametrize("split", [{}, {"method": "kfold", "fold": 2}, {"method": "date"}, {"seed": 7}])
def test_near_duplicates_never_straddle_a_split_of_ours(run, split: dict[str, Any]) -> None:
    report, splits = run(dated(starter_table(240) + copies(12)), **split)
    assert report["near_duplicates"] == {"rows": 12, "groups": 1, "largest": 12}
    assert report["leaks"]["test"] == report["leaks"]["validation"] == {"equal": 0, "near": 0}
    assert all(len(found) == 1 for found in where(splits, "near_group").values())
    assert sum(len(rows) for rows in splits.values()) == 252


def test_texts_without_labels_tell_nothing_of_validation_and_test(run) -> None:
    labelled = [{**row, "split": ("train", "validation", "test")[i % 3]} for i, row in enumerate(starter_table(240))]
    labelled += copies(1, split="test")
    texts = [
        raw_row(1, labelled[0]["text"], "", "wire"),  # in train
        raw_row(2, labelled[1]["text"].upper(), "", "wire"),  # in validation, but for the case
        *copies(2, "wire", start=50),  # another figure than a row of test
        raw_row(4, "A sentence that no other corpus has , on the price of tin", "", "wire"),
        raw_row(5, "A sentence that no other corpus has , on the price of tin", "", "wire"),
    ]
    report, splits = run(labelled, texts=texts)
    assert report["unlabelled"] == {"rows": 1, "near_held_out": 3, "repeated": 2}
    (kept,) = splits["unlabelled"]
    assert kept["id"] == "wire/rows.csv:6"
    assert len(kept["input_ids"]) > 5
    assert run(labelled)[0]["splits"] == report["splits"], "they change no split of the labelled rows"


def test_without_near_duplicates_only_equal_texts_stay_together(run, tmp_path: Path, tiny_backbone: Path) -> None:
    rows = starter_table(240) + copies(12) + [raw_row(5000 + i, "THE FIRM IS IN OSLO !", "neutral") for i in range(5)]
    rows += [raw_row(6000 + i, "The firm is in Oslo .", "neutral") for i in range(5)]
    params = PrepareParams.model_validate({**PARAMS, "near_duplicates": 0.0, "split": SPLIT})
    corpus = write_raw(tmp_path / "c.parquet", rows)
    report = prepare(
        corpus,
        write_raw(tmp_path / "u.parquet", []),
        LABELS,
        {},
        params,
        Backbone("tiny", tiny_backbone, "0", "MIT"),
        tmp_path / "cache",
        tmp_path / "o",
        tmp_path / "r.json",
        tmp_path / "lengths.csv",
    )
    assert report["near_duplicates"] == {"rows": 10, "groups": 1, "largest": 10}


def test_a_group_column_keeps_a_company_together(run) -> None:
    rows = [{**row, "group": f"company {i % 20}"} for i, row in enumerate(starter_table(240))]
    _, splits = run(rows)
    assert all(len(found) == 1 for found in where(splits, "group").values())
    assert {s for found in where(splits, "group").values() for s in found} == {"train", "validation", "test"}


def test_leaks_of_a_published_split_stay_and_are_told(run, tmp_path: Path) -> None:
    texts = starter_table(240)
    rows = [{**row, "split": "test" if i % 5 == 0 else "train"} for i, row in enumerate(texts)]
    rows += copies(4, split="train") + copies(2, start=50, split="test")  # near
    rows += [raw_row(3000, texts[1]["text"], texts[1]["label"], split="test")]  # equal: row 1 is in train
    report, splits = run(rows, known_as={"starter": "starter"})
    assert report["leaks"]["test"] == {"equal": 1, "near": 3}
    assert len(splits["test"]) == sum(row["split"] == "test" for row in rows)
    assert sorted(row["leak"] for row in splits["test"] if row["leak"]) == ["equal", "near", "near"]
    assert report["protocol"]["leaks"] == {"equal": 1, "near": 3}
    assert report["protocol"]["split"] == {"starter": "its own, the rest stratified, seed 42"}

    class Always:
        labels = LABELS

        def logits(self, texts: Sequence[str]) -> np.ndarray:
            return np.tile(np.array([[0.0, 0.0, 1.0]], np.float32), (len(texts), 1))

    params = load_params(REPO / "params.yaml").evaluate
    to = Written(*(tmp_path / name for name in ("p.parquet", "m.json", "s.json", "w.csv", "f.csv", "plots")))
    rows_of = [tmp_path / f"out/{split}.parquet" for split in ("train", "validation", "test")]
    polarity = {"negative": -1.0, "neutral": 0.0, "positive": 1.0}
    metrics = evaluate(Always(), *rows_of, REPO / "data/behaviour", polarity, params, tmp_path / "r.json", to)
    clean = [row for row in splits["test"] if not row["leak"]]
    assert metrics["n_without_leaks"] == len(clean) == metrics["n"] - 3
    assert metrics["accuracy_without_leaks"] == pytest.approx(np.mean([row["label"] == "positive" for row in clean]))
    steps = {"negative": 2, "neutral": 1, "positive": 0}
    assert metrics["ordinal_error"] == pytest.approx(np.mean([steps[row["label"]] for row in splits["test"]]))
    assert metrics["protocol"] == report["protocol"]


def test_a_split_that_the_corpus_lacks_is_cut_from_its_train_rows(run) -> None:
    rows = [{**row, "split": "test" if i % 5 == 0 else "train"} for i, row in enumerate(starter_table(240))]
    report, splits = run(rows)
    assert {row["id"] for row in splits["test"]} == {row["id"] for row in rows if row["split"] == "test"}
    assert len(splits["validation"]) == pytest.approx(0.1 * 192, abs=2)
    assert report["own_split"] == 240
    _, ignored = run(rows, own=False)
    assert {row["id"] for row in ignored["test"]} != {row["id"] for row in splits["test"]}


def test_rows_without_a_split_follow_their_copies_that_have_one(run) -> None:
    mine = [{**row, "split": "test" if i % 5 == 0 else "train"} for i, row in enumerate(starter_table(160))]
    own = copies(3, split="train") + mine
    free = copies(6, corpus="wire", start=20) + [{**row, "corpus": "wire"} for row in starter_table(240)[160:]]
    _, splits = run(own + free)
    assert {split for row in copies(6, corpus="wire", start=20) for split in where(splits, "id")[row["id"]]} == {"train"}


def test_a_row_that_can_be_trained_on_takes_its_unit_along(run) -> None:
    mine = [{**row, "split": "test" if i % 5 == 0 else "train"} for i, row in enumerate(starter_table(160))]
    own = copies(2, split="test") + copies(2, start=10, split="train") + mine
    free = copies(3, corpus="wire", start=20) + [{**row, "corpus": "wire"} for row in starter_table(240)[160:]]
    _, splits = run(own + free)
    ids = where(splits, "id")
    assert {s for row in copies(3, corpus="wire", start=20) + copies(2, start=10) for s in ids[row["id"]]} == {"train"}


def test_a_unit_shared_by_two_corpora_stops_nothing(run) -> None:
    free = copies(1, corpus="wire") + [{**row, "corpus": "wire"} for row in starter_table(240)[160:]]
    mine = [{**row, "split": "test" if i % 5 == 0 else "train"} for i, row in enumerate(starter_table(160))]
    _, splits = run(free + mine + copies(1, start=10, split="train"))
    assert {row["corpus"] for row in splits["test"]} == {"wire", "starter"}
    assert {s for row in copies(1, corpus="wire") for s in where(splits, "id")[row["id"]]} == {"train"}


def test_dates_and_splits_of_the_corpora_own_exclude_each_other(run) -> None:
    rows = dated([{**row, "split": "test" if i % 5 == 0 else "train"} for i, row in enumerate(starter_table(240))])
    with pytest.raises(DataError, match=r"goes by one calendar, but starter has a split of its own; set prepare\.split\.own to false"):
        run(rows, method="date")
    run(rows, method="date", own=False)


def test_the_split_of_what_is_trained_on_beside_a_held_out_corpus_is_told(run) -> None:
    other = [raw_row(i, row["text"], row["label"], "wire") for i, row in enumerate(starter_rows(240)[160:])]
    report, _ = run(starter_table(160) + other, method="held-out", held_out=["wire"])
    assert report["protocol"]["split"] == {"starter": "stratified, seed 42", "wire": "held out"}


def test_a_held_out_corpus_is_tested_whole_and_nothing_of_it_is_trained_on(run) -> None:
    rows = [{**row, "split": ("test", "train", "train", "train")[i % 4]} for i, row in enumerate(starter_table(160))]
    other = [raw_row(i, row["text"], row["label"], "wire") for i, row in enumerate(starter_rows(240)[160:])]
    report, splits = run(rows + other, method="held-out", held_out=["wire"])
    assert {row["corpus"] for row in splits["test"]} == {"wire"}
    assert len(splits["test"]) == len(other)
    assert {row["corpus"] for row in splits["train"] + splits["validation"]} == {"starter"}
    assert report["set_aside"] == 40
    assert report["protocol"]["kind"] == "held-out"
    assert report["protocol"]["split"] == {"starter": "its own, the rest stratified, seed 42", "wire": "held out"}


def test_every_row_is_tested_in_one_of_the_folds(run) -> None:
    tested: list[str] = []
    for fold in range(4):
        report, splits = run(starter_table(240), method="kfold", fold=fold)
        tested += [row["id"] for row in splits["test"]]
        assert len(splits["test"]) == pytest.approx(60, abs=2)
    assert len(tested) == len(set(tested)) == 240
    assert report["protocol"]["split"] == {"starter": "kfold 3 of 4, seed 42"}


def test_the_latest_rows_are_tested(run) -> None:
    _, splits = run(dated(starter_table(240)), method="date")
    latest = max(row["date"] for row in splits["train"])
    assert latest < min(row["date"] for row in splits["validation"])
    assert max(row["date"] for row in splits["validation"]) < min(row["date"] for row in splits["test"])
    with pytest.raises(DataError, match=r"method: date, but 240 texts have none; name the column under corpora\.X\.date"):
        run(starter_table(240), method="date")


def test_repeats_are_dropped_in_train_only(run) -> None:
    rows = [{**row, "split": "test" if i % 5 == 0 else "train"} for i, row in enumerate(starter_table(240))]
    again = [{**rows[1], "id": "starter/rows.csv:9001"}, {**rows[1], "id": "starter/rows.csv:9002", "label": "neutral"}]
    twice = [{**rows[0], "id": "starter/rows.csv:9003"}]
    report, splits = run(rows + again + twice)
    other = rows[1]["label"] != "neutral"
    assert report["duplicates"] == {"dropped_in_train": 2, "conflicting": int(other)}
    assert len(splits["test"]) == 49
    assert rows[1]["id"] in where(splits, "id")


def test_a_backbone_that_saw_the_test_corpus_is_flagged(run) -> None:
    report, _ = run(starter_table(240), known_as={"starter": "phrasebank"}, trained_on=("phrasebank",))
    assert report["protocol"]["contaminated"] == ["starter"]
    assert report["protocol"]["backbone_trained_on"] == ["phrasebank"]


def test_row_groups_make_no_difference(run) -> None:
    rows = starter_table(240) + copies(12)
    assert run(rows, groups=50) == run(rows)


def test_a_corpus_is_tokenised_once(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[int] = []
    encode = TextTokenizer.encode

    def counting(self: TextTokenizer, texts: Sequence[str], *rest: Any) -> Any:
        seen.append(len(texts))
        return encode(self, texts, *rest)

    monkeypatch.setattr(TextTokenizer, "encode", counting)
    large, small = starter_table(240), [raw_row(i, f"Wire {i} says little about the quarter", "neutral", "wire") for i in range(9)]
    _, first = run(large, groups=240)
    assert seen == [240]
    _, again = run(large + small, groups=240)
    assert seen == [240, 9]
    tokens = {row["id"]: row["input_ids"] for rows in again.values() for row in rows}
    assert all(tokens[row["id"]] == row["input_ids"] for rows in first.values() for row in rows)
    for file in (tmp_path / "cache").rglob("tokens.parquet"):
        file.write_bytes(file.read_bytes()[:-20])
    _, mended = run(large, groups=240)
    assert seen == [240, 9, 240]
    assert mended == first


def test_token_ids_are_those_of_transformers(run, tiny_backbone: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_backbone)
    _, splits = run(starter_table(240), texts=[raw_row(1, "A text of another corpus , on tin and zinc", "", "wire")])
    for rows in splits.values():
        expected = tokenizer([row["text"] for row in rows], truncation=True, max_length=64)["input_ids"]
        assert [row["input_ids"] for row in rows] == expected


def test_token_ids_are_mapped_not_read_and_are_those_of_their_rows(run, tmp_path: Path) -> None:
    run(starter_table(240), groups=50)
    path = tmp_path / "out/train.parquet"
    tokens = path.with_suffix(".arrow")
    before = pa.total_allocated_bytes()
    kept = read_tokens(tokens)
    assert pa.total_allocated_bytes() == before, "they are the file's bytes"
    assert [row.tolist() for row in read_rows(path)[0].ids] == [row.tolist() for row in kept]
    content = tokens.read_bytes()
    tokens.write_bytes((tmp_path / "out/test.arrow").read_bytes())
    with pytest.raises(ArtifactError, match=r"train.arrow: \d+ rows, .* has \d+; run `dvc repro --force prepare`"):
        read_rows(path)
    for damaged in (content[:-10], content[:-60] + b"\xff" * 48 + content[-12:], content[:100] + content[200:]):
        tokens.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"train.arrow: not a whole Arrow file|train.arrow: \d+ rows"):
            read_rows(path)
    tokens.unlink()
    with pytest.raises(ArtifactError, match="train.arrow: no such file"):
        read_rows(path)
