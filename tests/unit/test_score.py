"""`finsight score`: every row in its place with all its columns, whatever the format, the size of a shard, or a kill."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from conftest import LABELS
from finsight.errors import DataError
from finsight.pipeline.predict import Model
from finsight.pipeline.score import score

POLARITY = {"negative": -1.0, "neutral": 0.0, "positive": 1.0}


class Reads:
    """A classifier whose logits follow from the number that a text ends with."""

    labels = LABELS

    def __init__(self, dies_after: int = 10**9) -> None:
        self.asked: list[str] = []
        self._dies_after = dies_after

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if len(self.asked) >= self._dies_after:
            raise KeyboardInterrupt
        self.asked += texts
        number = np.array([int(text.rsplit(" ", 1)[1]) for text in texts], dtype=np.int64)
        return np.eye(3, dtype=np.float32)[number % 3] * 4 if len(texts) else np.zeros((0, 3), dtype=np.float32)


def model(classifier: Reads | None = None, polarity: dict[str, float] = POLARITY) -> Model:
    return Model(classifier or Reads(), polarity, 0.9)


def texts(n: int) -> list[str]:
    return [f"Row, with a comma and a\nnew line, number {i}" for i in range(n)]


def write(path: Path, n: int, **columns: Sequence[Any]) -> Path:
    rows = [dict(zip(columns, values, strict=True)) | {"text": text} for text, *values in zip(texts(n), *columns.values(), strict=True)]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["text", *columns], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return found
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("source", ["in.csv", "in.tsv", "in.jsonl", "in.parquet"])
@pytest.mark.parametrize("target", ["out.jsonl", "out.parquet"])
@pytest.mark.parametrize("rows", [1, 10, 23, 1000])
def test_every_row_keeps_its_place_and_its_columns(tmp_path: Path, source: str, target: str, rows: int) -> None:
    given = write(tmp_path / source, 23, id=[f"{i:03d}" for i in range(23)], when=[None if i % 2 else f"day {i}" for i in range(23)])
    found = score(given, tmp_path / target, "text", model(), "d", rows=rows)
    assert (found.rows, found.before, found.without_text) == (23, 0, 0)
    scored = read(tmp_path / target)
    assert [row["text"] for row in scored] == texts(23)
    assert [row["id"] for row in scored] == [f"{i:03d}" for i in range(23)], "leading zeros stay"
    assert [row["when"] or None for row in scored] == [None if i % 2 else f"day {i}" for i in range(23)]
    assert [row["predicted"] for row in scored] == [LABELS[i % 3] for i in range(23)]
    for row in scored:
        assert row["score"] == pytest.approx(row["prob_positive"] - row["prob_negative"], abs=1e-6)
        assert sum(row[f"prob_{label}"] for label in LABELS) == pytest.approx(1, abs=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source, target]), "nothing is left over"


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    table = pa.table({"text": texts(5), "n": pa.array([1, 2, None, 4, 5], pa.int16()), "at": pa.array(range(5), pa.timestamp("us", "UTC"))})
    pq.write_table(table, tmp_path / "in.parquet")
    score(tmp_path / "in.parquet", tmp_path / "out.parquet", "text", model(), "d", rows=2)
    assert pq.read_table(tmp_path / "out.parquet", columns=table.column_names).equals(table)


def test_a_killed_run_goes_on_and_one_of_another_bundle_begins_anew(tmp_path: Path) -> None:
    given, target = write(tmp_path / "in.csv", 50), tmp_path / "out.jsonl"

    def kill() -> None:
        with pytest.raises(KeyboardInterrupt):
            score(given, target, "text", model(Reads(dies_after=30)), "d", rows=10)

    kill()
    assert not target.exists(), "nothing half-written under its name"
    again = Reads()
    found = score(given, target, "text", model(again), "d", rows=10)
    assert (found.rows, found.before) == (50, 30)
    assert again.asked == texts(50)[30:]
    assert [row["text"] for row in read(target)] == texts(50)
    kill()
    assert len(read(target)) == 50, "the earlier result stays until there is a new one"
    assert score(given, target, "text", model(), "another", rows=10).before == 0
    kill()
    write(given, 51)
    assert score(given, target, "text", model(), "d", rows=10).before == 0, "another file under the same name"


def test_rows_without_a_text_keep_their_place(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [None, "a 1", None, "", "b 2"]}).slice(0, 3), tmp_path / "in.parquet")
    found = score(tmp_path / "in.parquet", tmp_path / "out.jsonl", "text", model(), "d", rows=1)
    assert (found.rows, found.without_text) == (3, 2)
    assert [row["predicted"] for row in read(tmp_path / "out.jsonl")] == [None, LABELS[1], None]
    assert [row["prob_neutral"] is None for row in read(tmp_path / "out.jsonl")] == [True, False, True]


def test_labels_without_an_order_have_no_score(tmp_path: Path) -> None:
    score(write(tmp_path / "in.csv", 3), tmp_path / "out.jsonl", "text", model(polarity={}), "d")
    assert "score" not in read(tmp_path / "out.jsonl")[0]
    assert model(polarity={}).predict(["a 1"])[0].score is None


def test_a_prediction_says_whether_it_is_sure() -> None:
    (found,) = model().predict(["a 2"])
    assert (found.label, found.sure) == ("positive", True)
    assert found.score == pytest.approx(found.probabilities["positive"] - found.probabilities["negative"])
    assert not Model(Reads(), POLARITY, 0.99).predict(["a 2"])[0].sure
    assert Model(Reads(), POLARITY, None).predict(["a 2"])[0].sure is None
    assert model().predict([]) == []


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("in.xlsx", b"", "can't read .xlsx; give one of .csv, .tsv, .jsonl, .parquet"),
        ("in.csv", None, "in.csv: no such file"),
        ("in.csv", b"", "in.csv"),
        ("in.csv", b"text\n", "no rows"),
        ("in.csv", b"a,a,text\n1,2,x 1\n", "column 'a' stands twice"),
        ("in.csv", b"body\nx 1\n", "no column 'text'; it has body: name one with --text"),
        ("in.csv", b"text,score\nx 1,2\n", "column 'score' is one that is added; rename it"),
        ("in.csv", b"text,a\nx 1\n", "Expected 2 columns, got 1"),
        ("in.csv", b"text\n\xff 1\n", "UTF"),
        ("in.jsonl", b'{"text": "x 1"}\n{"text": \n', "in.jsonl:2: not JSON"),
        ("in.jsonl", b'["x 1"]\n', "in.jsonl:1: got a JSON list, expected an object"),
        ("in.jsonl", b'{"text": "x 1", "n": 1}\n{"text": "x 2", "n": "two"}\n', "'n' has values of several types"),
        ("in.jsonl", b'{"text": 7}\n', "column 'text' holds int64, expected texts"),
        ("in.parquet", b"PAR1", "not a whole Parquet file"),
    ],
)
def test_what_can_t_be_scored_is_one_line(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(Exception, match=r"^[^\n]*$") as caught:
        score(tmp_path / name, tmp_path / "out.jsonl", "text", model(), "d")
    assert caught.value.__class__.__module__ == "finsight.errors"
    assert says in str(caught.value)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_column_that_changes_its_type_is_named(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "x 1", "n": 1}\n{"text": "x 2", "n": "two"}\n{"text": "x 3", "more": 1}\n')
    with pytest.raises(DataError, match=r"column 'n' is int64 in the first rows and string further on; write .jsonl"):
        score(tmp_path / "in.jsonl", tmp_path / "out.parquet", "text", model(), "d", rows=1)
    score(tmp_path / "in.jsonl", tmp_path / "out.jsonl", "text", model(), "d", rows=1)
    assert [row.get("n") for row in read(tmp_path / "out.jsonl")] == [1, "two", None]
    with pytest.raises(DataError, match=r"can't write .csv; give one of .jsonl, .parquet"):
        score(tmp_path / "in.jsonl", tmp_path / "out.csv", "text", model(), "d")
