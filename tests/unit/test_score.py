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
    if path.suffix == ".csv":
        numbers = ("score", *(f"prob_{label}" for label in LABELS))
        with path.open(newline="", encoding="utf-8") as file:
            return [{name: float(value) if name in numbers else value for name, value in row.items()} for row in csv.DictReader(file)]
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("source", ["in.csv", "in.tsv", "in.jsonl", "in.parquet"])
@pytest.mark.parametrize("target", ["out.csv", "out.jsonl", "out.parquet"])
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
        ("in.csv", b"text,a\nx 1\n", "in.csv:2: expected 2 columns, got 1; mend the line"),
        ("in.csv", b"text\n\xff 1\n", "UTF"),
        ("in.jsonl", b'{"text": "x 1"}\n{"text": \n', "in.jsonl:2: not JSON"),
        ("in.jsonl", b'["x 1"]\n', "in.jsonl:1: got a JSON list, expected an object"),
        ("in.jsonl", b'{"text": "x 1"}\n{"text": 0}\n', "'text' is 0 in a row, expected a text: name another with --text"),
        ("in.jsonl", b'{"body": "x 1"}\n{"score": 1}\n', "column 'score' is one that is added; rename it"),
        ("in.jsonl", b'{"body": "x 1"}\n', "no column 'text'; it has body: name one with --text"),
        ("in.jsonl", b'{"text": ' + b"[" * 100_000 + b"\n", "in.jsonl:1: not JSON"),
        ("in.csv", b'a,text\n1,"profit 1\n2,loss 2\n', "in.csv:3: unexpected end of data; mend the quotes"),
        ("in.csv", b'text,a\n"profit" rises 1,2\n', "in.csv:2: ',' expected after '\"'; mend the quotes"),
        ("in.jsonl", b"{}\n", "no column 'text'; it has none: name one with --text"),
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
    asked = Reads()
    with pytest.raises(
        DataError, match=r"in.jsonl: Parquet can't hold its rows \(.*Field n has incompatible types: int64 vs string\); write .jsonl"
    ):
        score(tmp_path / "in.jsonl", tmp_path / "out.parquet", "text", model(asked), "d", rows=1)
    assert not asked.asked, "said before hours are spent"
    score(tmp_path / "in.jsonl", tmp_path / "out.jsonl", "text", model(), "d", rows=1)
    assert [row.get("n") for row in read(tmp_path / "out.jsonl")] == [1, "two", None]
    with pytest.raises(DataError, match=r"can't write .xlsx; give one of .csv, .jsonl, .parquet"):
        score(tmp_path / "in.jsonl", tmp_path / "out.xlsx", "text", model(), "d")


def lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_lines_of_json_as_csv_have_the_columns_of_all_of_them(tmp_path: Path) -> None:
    rows = [{"text": "x 1", "deep": {"a": [1, "ä"]}}, {"n": 0.5}, {"text": "half \ud83d 5", "flag": True}]
    score(lines(tmp_path / "in.jsonl", rows), tmp_path / "out.csv", "text", model(polarity={}), "d", rows=1)
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        head, *found = csv.reader(file)
    assert head == ["text", "deep", "n", "flag", "predicted", "prob_negative", "prob_neutral", "prob_positive"]
    assert [row[:5] for row in found] == [
        ["x 1", '{"a": [1, "ä"]}', "", "", "neutral"],
        ["", "", "0.5", "", ""],
        ["half ? 5", "", "", "true", "positive"],
    ]
    assert found[1][4:] == [""] * 4


@pytest.mark.parametrize("size", [1, 2, 100])
def test_lines_of_json_come_out_as_they_went_in(tmp_path: Path, size: int) -> None:
    rows = [
        {"text": "x 1", "n": 1, "deep": {"a": 1}},
        {"text": "x 2", "n": 0.5, "deep": {"b": [1, True, None]}},
        {"n": 2**70},
        {"text": None, "deep": {}},
        {"text": " "},
        {"text": "half \ud83d of it 5", "n": float("nan")},
    ]
    found = score(lines(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", "text", model(), "d", rows=size)
    assert (found.rows, found.without_text) == (6, 3)
    added = ("predicted", "prob_negative", "prob_neutral", "prob_positive", "score")
    kept = [{name: value for name, value in row.items() if name not in added} for row in read(tmp_path / "out.jsonl")]
    assert kept == [*rows[:5], rows[5] | {"n": None}], "JSON has no word for what is not a number"
    assert repr(kept[0]["n"]) == "1"
    assert "NaN" not in (tmp_path / "out.jsonl").read_text()
    assert [row["predicted"] for row in read(tmp_path / "out.jsonl")] == ["neutral", "positive", None, None, None, "positive"]


@pytest.mark.parametrize("size", [1, 2, 100])
def test_parquet_takes_the_type_that_all_lines_share(tmp_path: Path, size: int) -> None:
    rows = [{"text": "x 1", "n": 1, "late": None}, {"text": "x 2", "n": 0.5, "late": None}, {"n": None, "late": "word", "never": None}]
    score(lines(tmp_path / "in.jsonl", rows), tmp_path / "out.parquet", "text", model(), "d", rows=size)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.select(["text", "n", "late", "never"]).to_pydict() == {
        "text": ["x 1", "x 2", None],
        "n": [1.0, 0.5, None],
        "late": [None, None, "word"],
        "never": [None, None, None],
    }


@pytest.mark.parametrize(
    "rows",
    [
        [{"text": "x 1", "n": True}, {"text": "x 2", "n": 5}],
        [{"text": "x 1", "n": 1}, {"text": "x 2", "n": "007"}],
        [{"text": "x 1", "n": 1.5}, {"text": "x 2", "n": True}],
        [{"text": "x 1", "n": {"deep": [1.5, False]}}],
        [{"text": "x 1", "n": {}}],
        [{"text": "x 1", "n": 2**70}],
        [{"text": "x 1", "n": "half \ud83d"}],
        [{"text": "x 1", "n": 0.5}, {"text": "x 2", "n": 2**60 + 1}],
    ],
)
@pytest.mark.parametrize("size", [1, 100])
def test_no_value_is_changed_to_fit_into_parquet(tmp_path: Path, rows: list[dict[str, Any]], size: int) -> None:
    with pytest.raises(DataError, match=r"^[^\n]*in.jsonl: Parquet can't hold its rows [^\n]*; write .jsonl$"):
        score(lines(tmp_path / "in.jsonl", rows), tmp_path / "out.parquet", "text", model(), "d", rows=size)
    assert score(tmp_path / "in.jsonl", tmp_path / "out.jsonl", "text", model(), "d", rows=size).rows == len(rows)


def test_columns_of_csv_stay_as_they_stand_whatever_the_head_looks_like(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b"\xef\xbb\xbf\r\ntext,l,d\r\nx 1,007,1.50\r\n,true,\r\n")
    found = score(tmp_path / "in.csv", tmp_path / "out.jsonl", "text", model(), "d")
    assert (found.rows, found.without_text) == (2, 1)
    assert [(row["text"], row["l"], row["d"]) for row in read(tmp_path / "out.jsonl")] == [("x 1", "007", "1.50"), ("", "true", "")]
    (tmp_path / "one.csv").write_text("\ntext\nx 1\n\nx 2\n")
    score(tmp_path / "one.csv", tmp_path / "one.jsonl", "text", model(), "d")
    assert [row["predicted"] for row in read(tmp_path / "one.jsonl")] == ["neutral", None, "positive"], "an empty line is a row"


def test_a_text_of_csv_may_be_as_long_as_a_filing(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(f'text,n\n"{"word " * 500_000}1",5" nails\n')
    score(tmp_path / "in.csv", tmp_path / "out.parquet", "text", model(), "d")
    assert [(len(row["text"]), row["n"]) for row in read(tmp_path / "out.parquet")] == [(2_500_001, '5" nails')]


def test_parquet_that_arrow_reads_and_python_does_not_is_one_line(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["x 1"], "day": pa.array([2932897], pa.date32())}), tmp_path / "late.parquet")
    with pytest.raises(DataError, match=r"JSON can't hold its rows \(.*\); write .parquet"):
        score(tmp_path / "late.parquet", tmp_path / "out.jsonl", "text", model(), "d")
    assert score(tmp_path / "late.parquet", tmp_path / "out.parquet", "text", model(), "d").rows == 1
    broken = pa.StringArray.from_buffers(1, pa.py_buffer(b"\x00\x00\x00\x00\x02\x00\x00\x00"), pa.py_buffer(b"\xff1"))
    pq.write_table(pa.table({"text": broken}), tmp_path / "broken.parquet")
    for target in ("out.jsonl", "out.parquet"):
        with pytest.raises(DataError, match="not a whole Parquet file .*UTF8"):
            score(tmp_path / "broken.parquet", tmp_path / target, "text", model(), "d")
    pairs = pa.array([[("a", float("nan")), ("b", 1.0)]], pa.map_(pa.string(), pa.float64()))
    pq.write_table(pa.table({"text": ["x 1"], "pairs": pairs}), tmp_path / "pairs.parquet")
    score(tmp_path / "pairs.parquet", tmp_path / "pairs.jsonl", "text", model(), "d")
    assert read(tmp_path / "pairs.jsonl")[0]["pairs"] == [["a", None], ["b", 1.0]]


def test_a_name_with_a_colon_is_a_file_and_a_folder_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"when": ["x 1"] * 5}), "in.parquet")
    assert score(Path("in.parquet"), Path("s3:10.parquet"), "when", model(), "d", rows=2).rows == 5
    Path("in.parquet").rename("s3:in.parquet")
    assert score(Path("s3:in.parquet"), Path("s3:10.jsonl"), "when", model(), "d", rows=2).rows == 5
    assert [row["when"] for row in read(Path("s3:10.jsonl"))] == ["x 1"] * 5
    Path("folder.jsonl").mkdir()
    with pytest.raises(DataError, match="folder.jsonl: is a folder; name a file"):
        score(Path("s3:in.parquet"), Path("folder.jsonl"), "when", model(), "d")


def test_a_kill_while_the_shards_are_removed_leaves_a_folder_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, target = write(tmp_path / "in.csv", 10), tmp_path / "out.jsonl"
    unlink, parts = Path.unlink, tmp_path / "out.jsonl.parts"
    for survivors in range(1, 7):  # five shards, of.json, the lock

        def dies(path: Path, missing_ok: bool = False, survivors: int = survivors) -> None:
            if path.parent == parts and target.exists() and len(list(parts.iterdir())) == survivors:
                raise KeyboardInterrupt
            unlink(path, missing_ok)

        target.unlink(missing_ok=True)
        monkeypatch.setattr(Path, "unlink", dies)
        with pytest.raises(KeyboardInterrupt):
            score(given, target, "text", model(), "d", rows=2)
        monkeypatch.setattr(Path, "unlink", unlink)
        assert parts.exists()
        assert score(given, target, "text", model(), "d", rows=2).rows == 10
        assert [row["text"] for row in read(target)] == texts(10)
        assert not parts.exists()


def test_parquet_of_categories_is_read_and_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array(["x 1", "x 2", "x 1"]).dictionary_encode()}), tmp_path / "in.parquet")
    score(tmp_path / "in.parquet", tmp_path / "out.parquet", "text", model(), "d", rows=2)
    assert pq.read_table(tmp_path / "out.parquet")["predicted"].to_pylist() == ["neutral", "positive", "neutral"]
    pq.write_table(pa.table([["x 1"], [1], [2]], names=["text", "n", "n"]), tmp_path / "twice.parquet")
    with pytest.raises(DataError, match="column 'n' stands twice"):
        score(tmp_path / "twice.parquet", tmp_path / "out.jsonl", "text", model(), "d")


def test_the_folder_of_shards_is_one_run_s_own(tmp_path: Path) -> None:
    given, target = write(tmp_path / "in.csv", 30), tmp_path / "out.jsonl"
    parts = tmp_path / "out.jsonl.parts"

    class Meanwhile(Reads):
        def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
            if texts and not self.asked:
                with pytest.raises(DataError, match="another `finsight score` is at it"):
                    score(write(tmp_path / "other.csv", 3), target, "text", model(), "d")
            return super().logits(texts)

    assert score(given, target, "text", model(Meanwhile()), "d", rows=10).rows == 30
    assert [row["text"] for row in read(target)] == texts(30)

    parts.mkdir()
    (parts / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match="holds files that no `finsight score` wrote"):
        score(given, target, "text", model(), "d")
    assert (parts / "mine.txt").read_text() == "precious"
    parts.rename(tmp_path / "elsewhere")
    parts.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is a link"):
        score(given, target, "text", model(), "d")
    with pytest.raises(DataError, match="is the file that is read"):
        score(write(tmp_path / "same.jsonl", 3), tmp_path / "same.jsonl", "text", model(), "d")


def test_progress_knows_how_many_rows_there_are(tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    score(write(tmp_path / "in.csv", 25), tmp_path / "out.jsonl", "text", model(), "d", lambda *what: told.append(what), rows=10)
    assert told == [("read", 10, None), ("read", 10, None), ("read", 5, None), ("scored", 10, 25), ("scored", 10, 25), ("scored", 5, 25)]


def test_a_file_that_grows_while_it_is_scored_is_told(tmp_path: Path) -> None:
    class Grows(Reads):
        def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
            if not self.asked:
                write(source, 60)
            return super().logits(texts)

    source = write(tmp_path / "in.jsonl", 50)
    with pytest.raises(DataError, match=r"in.jsonl: has changed since this run began; run the command again$"):
        score(source, tmp_path / "out.jsonl", "text", model(Grows()), "d")
    assert not (tmp_path / "out.jsonl").exists()
    assert score(source, tmp_path / "out.jsonl", "text", model(), "d").rows == 60
