"""One suite for every CorpusReader, and what each format asks beyond it."""

import datetime as dt
import gzip
import io
import json
import struct
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from corpora import LIMITS, as_csv, as_json, as_xlsx, as_zip, files, reader_of
from finsight.adapters import compressed
from finsight.adapters.fiqa_corpus import FiqaReader
from finsight.adapters.phrasebank_corpus import FILES, PhraseBankReader
from finsight.adapters.table_corpus import TableReader
from finsight.domain.records import Example, Rejection
from finsight.errors import DataError, ParamsError
from finsight.params.corpora import PhraseBankCorpus, TableCorpus
from finsight.ports import CorpusReader

SENTENCES = [("Profit rose to EUR 2 mn .", "positive"), ("Köln sales fell @ 3 % .", "negative"), ("The firm is in Oslo .", "neutral")]
ALL = sorted(files(SENTENCES))


def table(folder: Path, name: str, content: str | bytes, **params: Any) -> TableReader:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return TableReader("mine", TableCorpus(**{"path": str(path), "license": "x", "format": "table", **params}))


def csv_reader(folder: Path, content: str | bytes, **params: Any) -> TableReader:
    return table(folder, "rows.csv", content, **{"format": "csv", **params})


def phrasebank_reader(folder: Path, lines: list[str], encoding: str = "latin-1", end: str = "\r\n", **params: Any) -> PhraseBankReader:
    (folder / FILES[50]).write_bytes((end.join(lines) + end).encode(encoding))
    return PhraseBankReader("mine", PhraseBankCorpus(path=str(folder), license="x", format="phrasebank", **params))


def refused(reader: CorpusReader, match: str) -> None:
    with pytest.raises(DataError, match=match) as error:
        list(reader.read())
    assert "\n" not in str(error.value)


def examples(reader: CorpusReader) -> list[Example]:
    rows = list(reader.read())
    assert not [r for r in rows if isinstance(r, Rejection)], rows
    return [r for r in rows if isinstance(r, Example)]


def reasons(reader: CorpusReader) -> list[str | None]:
    return [r.reason if isinstance(r, Rejection) else None for r in reader.read()]


@pytest.fixture(params=ALL)
def reader(request: pytest.FixtureRequest, tmp_path: Path) -> CorpusReader:
    name, content = files(SENTENCES)[request.param]
    (tmp_path / name).write_bytes(content)
    (tmp_path / ".hidden.csv").write_text("no,columns\n")
    (tmp_path / "mine.dvc").write_text("outs:")
    return reader_of(request.param, tmp_path)


def test_rows_come_in_order_with_text_label_and_a_place(reader: CorpusReader) -> None:
    rows = examples(reader)
    assert [(r.text, r.label) for r in rows] == SENTENCES
    ids = [r.id for r in rows]
    assert len(set(ids)) == 3
    assert all(i.startswith("mine/") and i.rpartition(":")[2].replace(".", "").isdigit() for i in ids)


def test_reading_twice_gives_the_same(reader: CorpusReader) -> None:
    assert list(reader.read()) == list(reader.read())


def test_the_encoding_of_each_text_file_is_known_once_read(reader: CorpusReader, tmp_path: Path) -> None:
    list(reader.read())
    shown = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")}
    found = reader.facts()["encodings"]
    assert set(found.values()) <= {"utf-8", "latin-1"}
    assert all(name in shown or name.startswith("all.zip/in/") for name in found)
    if not any(suffix in str(shown) for suffix in ("parquet", "xlsx", "zip")):
        assert len(found) == 1


@pytest.mark.parametrize("format", ["csv", "phrasebank", "fiqa"])
def test_a_missing_corpus_says_how_to_bring_it_in(format: str, tmp_path: Path) -> None:
    refused(reader_of(format, tmp_path / "none"), "finsight corpus add mine")


@pytest.mark.parametrize("format", [f for f in ALL if f.endswith(("gz", "zst", "zip")) or f in ("parquet", "excel", "json", "fiqa")])
def test_a_file_that_is_cut_off_is_refused_and_never_read_in_part(format: str, tmp_path: Path) -> None:
    name, content = files(SENTENCES * 50)[format]
    for size in (len(content) // 2, len(content) - 1 if not format.startswith(("json+", "fiqa+")) else len(content) - 5):
        (tmp_path / name).write_bytes(content[:size])
        refused(reader_of(format, tmp_path), r"cut off|not a whole|not JSON|not a workbook")


# --- delimited text


def test_csv_with_bom_tabs_quoted_line_breaks_and_own_columns(tmp_path: Path) -> None:
    content = '\ufeffid\tsentence\tmood\tpart\n7\t"one\n\ntwo ""three"""\t1\ttest\n\n8\tfour\tup\t\n9\tfive\tup\tDev\n'
    label_map: dict[str | int, str | None] = {1: "positive", "up": "positive"}
    reader = csv_reader(tmp_path, content, delimiter="\t", text="sentence", label="mood", split="part", label_map=label_map)
    assert list(reader.read()) == [
        Example("mine/rows.csv:2", 'one\n\ntwo "three"', "positive", "mine", "test"),
        Example("mine/rows.csv:6", "four", "positive", "mine", None),
        Example("mine/rows.csv:7", "five", "positive", "mine", "validation"),
    ]
    assert reader.facts() == {"encodings": {"rows.csv": "utf-8-sig"}}


def test_a_folder_of_csv_files_is_one_corpus(tmp_path: Path) -> None:
    for name in ("b", "a", "sub/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{name},neutral\n")
    (tmp_path / "README.md").write_text("nothing")
    reader = TableReader("mine", TableCorpus(path=str(tmp_path), license="x", format="csv"))
    assert [r.id for r in examples(reader)] == ["mine/a.csv:2", "mine/b.csv:2", "mine/sub/c.csv:2"]


def test_a_glob_names_files_within_its_fixed_part(tmp_path: Path) -> None:
    for name in ("2023/a.csv", "2024/a.csv", "2024/b.csv", "2024/b.txt", ".old/c.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(as_csv([(name, "neutral")]))
    assert [r.id for r in examples(reader_of("csv", tmp_path / "*/a.csv"))] == ["mine/2023/a.csv:2", "mine/2024/a.csv:2"]
    assert [r.text for r in examples(reader_of("csv", tmp_path / "2024/*"))] == ["2024/a.csv", "2024/b.csv"]
    refused(reader_of("csv", tmp_path / "2024/*.json"), "holds no")


def test_a_file_without_header_has_numbered_columns(tmp_path: Path) -> None:
    reader = csv_reader(tmp_path, "\nneutral,one\npositive,two\nx\n", header=False, text=1, label=0)
    rows = list(reader.read())
    assert [(r.id, r.text, r.label) for r in rows if isinstance(r, Example)] == [
        ("mine/rows.csv:2", "one", "neutral"),
        ("mine/rows.csv:3", "two", "positive"),
    ]
    assert isinstance(rows[2], Rejection)
    assert rows[2].reason == "1 columns where the first line has 2"
    refused(csv_reader(tmp_path, "a,b\n", header=False, text=0, label=2), r"no column 2 among 2, counted from 0; set corpora\.mine\.label")
    assert [r.text for r in examples(csv_reader(tmp_path, "label,text\nneutral,one\n", text=1))] == ["one"]


def test_ragged_rows_are_rejected_and_the_rest_is_read(tmp_path: Path) -> None:
    rows = list(csv_reader(tmp_path, "text,label\na,neutral\nb\nc,neutral,x\nd,neutral\n").read())
    assert [type(r) for r in rows] == [Example, Rejection, Rejection, Example]
    assert rows[1] == Rejection("mine/rows.csv:3", "mine", "1 columns where the header has 2", "['b']")


@pytest.mark.parametrize(
    ("content", "params", "says"),
    [
        (
            b"text,label\nok,neutral\ncaf\xe9,neutral\n",
            {},
            r"rows\.csv: line 3: byte 0xe9 is not UTF-8; it looks like cp1252: set corpora\.mine\.enc",
        ),
        (b"text,label\ncut off \xc3", {}, r"rows\.csv: line 2: byte 0xc3 is not UTF-8; the file is cut off, or"),
        (b"text,label\ncaf\xe9,neutral\n", {"encoding": "utf-8-sig"}, r"byte 0xe9 is not utf-8-sig"),
        (b"text,label\ncaf\xe9,neutral\n", {"encoding": "ascii"}, r"byte 0xe9 is not ascii; set corpora\.mine\.encoding"),
        ("headline,label\na,neutral\n", {}, r"no column 'text' in \['headline', 'label'\]; set corpora\.mine\.text"),
        ("text,label\na,neutral\n", {"date": "when"}, r"no column 'when' in .*; set corpora\.mine\.date"),
        ("text;label\na;neutral\n", {}, r"no column 'text' in \['text;label'\]; set corpora\.mine\.text or \.delimiter"),
        ("text,text,label\na,b,neutral\n", {}, "names a column twice"),
        ('text,label\n"a"b,neutral\n', {}, r"line 2: not CSV: .*check its quotes"),
        ("text,label\n" + "x" * 200_000 + ",neutral\n", {}, r"line 2: not CSV: field larger than field limit"),
        ("", {}, r"no column 'text' in \[\]"),
    ],
)
def test_what_is_no_such_csv_is_named_by_place(tmp_path: Path, content: str | bytes, params: dict[str, Any], says: str) -> None:
    refused(csv_reader(tmp_path, content, **params), says)


# --- encodings


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("format", ["csv", "json", "jsonl", "fiqa"])
def test_a_byte_order_mark_decides(format: str, encoding: str, tmp_path: Path) -> None:
    name, content = files(SENTENCES)[format]
    (tmp_path / name).write_bytes(content.decode().encode(encoding))
    reader = reader_of(format, tmp_path)
    assert [(r.text, r.label) for r in examples(reader)] == SENTENCES
    assert reader.facts() == {"encodings": {name: encoding}}


def test_big_endian_utf_16_and_a_named_encoding(tmp_path: Path) -> None:
    text = "text,label\nKöln,neutral\n"
    assert [r.text for r in examples(csv_reader(tmp_path, b"\xfe\xff" + text.encode("utf-16-be")))] == ["Köln"]
    assert [r.text for r in examples(csv_reader(tmp_path, text.encode("cp850"), encoding="cp850"))] == ["Köln"]


def test_a_bad_byte_far_into_a_file_is_named_by_its_line(tmp_path: Path) -> None:
    lines = b"text,label\n" + b"some headline or other,neutral\n" * 9998
    refused(csv_reader(tmp_path, lines + b"caf\xe9,neutral\n" + lines), r"line 10000: byte 0xe9")
    refused(table(tmp_path, "rows.csv.gz", gzip.compress(lines + b"caf\xe9,neutral\n")), r"rows\.csv\.gz: line 10000: byte 0xe9")
    cyrillic = "text,label\n" + "Прибыль компании выросла вдвое за квартал,positive\n" * 20
    refused(csv_reader(tmp_path, cyrillic.encode("cp1251")), r"line 2: byte 0xcf is not UTF-8; it looks like cp1251")


@pytest.mark.parametrize("encoding", ["utf-9", "base64", "a\x00b"])
def test_an_unknown_encoding_is_a_wrong_parameter(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(ParamsError, match=r"corpora\.mine\.encoding: .* is no text encoding"):
        list(csv_reader(tmp_path, "text,label\n", encoding=encoding).read())


# --- JSON


@pytest.mark.parametrize(
    "content",
    [
        {"data": [{"text": "a", "label": 1}]},
        {"version": "1.0", "rows": [{"text": "a", "label": 1}]},
        {"17": {"text": "a", "label": 1, "more": {"deep": [1, {}]}}},
        [{"text": "a", "label": 1.0}],
        [{"text": "a", "label": "1"}],
    ],
)
def test_json_is_a_list_a_list_under_a_key_or_objects_by_id(content: Any, tmp_path: Path) -> None:
    reader = table(tmp_path, "rows.json", json.dumps(content), label_map={1: "positive"})
    assert list(reader.read()) == [Example("mine/rows.json:1", "a", "positive", "mine")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"train": [], "test": []}', "holds a list beside other lists or objects, such as 'test'"),
        ('{"1": {"text": "a", "label": "b"}, "data": []}', "holds a list beside"),
        ("5", "holds no rows; expected a list of objects"),
        ('{"text": "a", "label": "neutral"}', "holds no rows"),
        ('[{"text": "a"', "not JSON: parse error: premature EOF; if each line is an object, set format: jsonl"),
        ('[{"text": "a", "label": "b"}] []', "not JSON"),
        ('[{"headline": "a", "label": "b"}]', r"no 'text' in any object, the first has \['headline', 'label'\]; set corpora\.mine\.text"),
        ("[" * 200 + "]" * 200, "nested deeper than 64"),
        ("[" + "9" * 5000 + "]", "not JSON"),
        ("", "not JSON"),
    ],
)
def test_what_is_no_table_in_json_is_refused(content: str, says: str, tmp_path: Path) -> None:
    refused(table(tmp_path, "rows.json", content), says)


def test_json_lines_that_are_malformed_are_rejected(tmp_path: Path) -> None:
    lines = [
        '{"text": "a", "label": 0}',
        "",
        "{no",
        "3",
        '["b", 0]',
        '{"text": "\\ud800", "label": 0}',
        '{"text": 5, "label": 0}',
        '{"label": 0}',
    ]
    reader = table(tmp_path, "rows.jsonl", "\r\n".join(lines))
    assert reasons(reader) == [
        None,
        "not JSON: Expecting property name enclosed in double quotes",
        "a JSON int where an object is expected",
        None,
        "a lone surrogate in the text",
        "text is of type int",
        None,
    ]
    assert [r.id for r in reader.read()][1] == "mine/rows.jsonl:3"
    by_number = table(tmp_path, "rows.jsonl", '["neutral", "b"]\n', text=1, label=0)
    assert [(r.text, r.label) for r in examples(by_number)] == [("b", "neutral")]
    assert reasons(table(tmp_path, "rows.jsonl", '{"text": "a", "label": "x"}\n' + "[" * 100_000)) == [None, "not JSON: nested too deep"]


# --- Parquet and Excel


def test_parquet_reads_numbers_dates_and_nothing_but_the_wanted_columns(tmp_path: Path) -> None:
    day = dt.datetime(2024, 2, 29, 23, 30, tzinfo=dt.UTC)
    columns = {
        "text": ["a", None, "c"],
        "label": [1, 2, 1],
        "at": pa.array([day, None, day], pa.timestamp("us", "UTC")),
        "blob": [b"\xff"] * 3,
    }
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    rows = examples(reader_of("table", tmp_path, date="at", label_map={1: "positive", 2: "neutral"}))
    assert [(r.text, r.label, r.date) for r in rows] == [
        ("a", "positive", "2024-02-29T23:30:00Z"),
        ("", "neutral", None),
        ("c", "positive", "2024-02-29T23:30:00Z"),
    ]
    assert reasons(reader_of("table", tmp_path, text="blob")) == ["text is of type bytes"] * 3
    refused(reader_of("table", tmp_path, text="body"), "no column 'body'")


def test_excel_finds_the_sheet_and_counts_rows_as_the_sheet_does(tmp_path: Path) -> None:
    rows = [("text", "label", "no"), ("a", 1, 7), ("", "", ""), (12, 1, 7), ("b", 1.0, 8)]
    reader = table(tmp_path, "rows.xlsx", as_xlsx(rows), label_map={1: "positive"}, keep=["no"])
    found = list(reader.read())
    assert found[0] == Example("mine/rows.xlsx:2", "a", "positive", "mine", extra={"no": "7"})
    assert isinstance(found[1], Rejection)
    assert found[1].reason == "text is of type float"
    assert found[2].id == "mine/rows.xlsx:5"
    refused(table(tmp_path, "rows.xlsx", as_xlsx(rows), sheet="Other"), r"no sheet 'Other' among \['Rows'\]; set corpora\.mine\.sheet")
    refused(table(tmp_path, "rows.xlsx", as_xlsx(rows), text="body"), r"no column 'body' in .* or \.sheet")
    refused(table(tmp_path, "rows.xlsx", b"text,label\n"), r"not a whole \.xlsx workbook")
    refused(table(tmp_path, "rows.xlsx", as_zip({"a.txt": b"a"})), "not a workbook that can be read")


def test_a_workbook_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    cells = "<row r='1'><c r='A1'><v>1</v></c></row><row r='1048576'><c r='XFD1048576'><v>1</v></c></row>"
    far = f"<worksheet><sheetData>{cells}</sheetData></worksheet>"
    refused(table(tmp_path, "far.xlsx", as_xlsx([], far)), "cells so far apart")
    refused(table(tmp_path, "rows.xlsx", as_zip({"xl/workbook.xml": bytes(70 << 20)})), "unpacks to more than 64 MiB")


# --- columns beside text and label


def test_a_label_that_is_mapped_to_nothing_is_left_out(tmp_path: Path) -> None:
    reader = csv_reader(tmp_path, "text,label\na,mixed\nb,neutral\n", label_map={"mixed": None})
    assert list(reader.read()) == [
        Rejection("mine/rows.csv:2", "mine", "label 'mixed' is ignored", "['a', 'mixed']", ignored=True),
        Example("mine/rows.csv:3", "b", "neutral", "mine"),
    ]
    assert [
        r.label for r in phrasebank_reader(tmp_path, ["a@neutral"], label_map={"neutral": "positive"}).read() if isinstance(r, Example)
    ] == ["positive"]


@pytest.mark.parametrize("written", ["2", " 2 ", "2.0", "2."])
def test_a_label_matches_however_a_tool_wrote_its_number(written: str, tmp_path: Path) -> None:
    maps: list[dict[str | int, str | None]] = [{2: "neutral"}, {"2": "neutral"}]
    for label_map in maps:
        assert [r.label for r in examples(csv_reader(tmp_path, f"text,label\na,{written}\n", label_map=label_map))] == ["neutral"]


def test_scores_become_labels_by_thresholds(tmp_path: Path) -> None:
    scores = ["-1", "-0.1", "-0.09", "0.1", "0.11", "1", "1.01", "nan", "up", "", "1e400"]
    reader = csv_reader(tmp_path, "text,score\n" + "".join(f"a,{s}\n" for s in scores), score="score", thresholds=LIMITS)
    rows = list(reader.read())
    assert [r.label for r in rows if isinstance(r, Example)] == ["negative", "negative", "neutral", "neutral", "positive", "positive"]
    assert [r.reason for r in rows if isinstance(r, Rejection)] == [
        "score 1.01 is above the last of thresholds",
        "score 'nan' is no number",
        "score 'up' is no number",
        "no score",
        "score '1e400' is no number",
    ]


def test_agreement_is_a_percentage_rounded_down(tmp_path: Path) -> None:
    reader = csv_reader(
        tmp_path, "text,label,agree\n" + "".join(f"a,x,{s}\n" for s in ("75", "66.7%", "0.75", "", "101", "-1")), agreement="agree"
    )
    rows = list(reader.read())
    assert [r.agreement for r in rows if isinstance(r, Example)] == [75, 66, None]
    assert reasons(reader)[4:] == ["agreement 101 is not between 0 and 100", "agreement -1 is not between 0 and 100"]


def test_an_agreement_that_is_a_share_is_not_taken_for_a_percentage(tmp_path: Path) -> None:
    found = reasons(csv_reader(tmp_path, "text,label,agree\na,x,0.75\nb,x,1\n", agreement="agree"))
    assert found == ["agreement 0.75 is a share, expected percent (0 to 100)", "agreement 1 is a share, expected percent (0 to 100)"]


@pytest.mark.parametrize(
    ("written", "format", "date"),
    [
        ("2024-02-29", None, "2024-02-29T00:00:00Z"),
        ("2024-02-29T12:00:00.9+02:00", None, "2024-02-29T10:00:00Z"),
        ("2024-02-29 12:00Z", None, "2024-02-29T12:00:00Z"),
        ("29.02.2024", "%d.%m.%Y", "2024-02-29T00:00:00Z"),
        ("Feb 29 2024 11:00 -0500", "%b %d %Y %H:%M %z", "2024-02-29T16:00:00Z"),
        ("", None, None),
    ],
)
def test_dates_become_utc_to_the_second(written: str, format: str | None, date: str | None, tmp_path: Path) -> None:
    reader = csv_reader(tmp_path, f"text,label,on\na,neutral,{written}\n", date="on", date_format=format)
    assert [r.date for r in examples(reader)] == [date]


def test_dates_that_are_none_are_rejected(tmp_path: Path) -> None:
    content = "text,label,on\na,x,29.02.2024\nb,x,0001-01-01T00:00:00+14:00\n"
    assert reasons(csv_reader(tmp_path, content, date="on")) == [
        "date '29.02.2024' is not ISO 8601",
        "date '0001-01-01T00:00:00+14:00' is not ISO 8601",
    ]
    with pytest.raises(ParamsError, match=r"corpora\.mine\.date_format: .*bad directive"):
        list(csv_reader(tmp_path, content, date="on", date_format="%Q").read())


def test_group_and_kept_columns_are_carried_along(tmp_path: Path) -> None:
    reader = csv_reader(tmp_path, "text,label,firm,kind\na,x,Nokia,post\nb,x,,\n", group="firm", keep=["kind"])
    assert [(r.group, r.extra) for r in examples(reader)] == [("Nokia", {"kind": "post"}), (None, {"kind": ""})]


def test_one_file_a_split(tmp_path: Path) -> None:
    for name in ("train_a", "train_b", "valid", "test"):
        (tmp_path / f"{name}.csv").write_bytes(as_csv([(name, "neutral")]))
    patterns = {"train": "train_*.csv", "validation": "valid.csv", "test": "test.csv"}
    rows = examples(reader_of("table", tmp_path, split_files=patterns))
    assert {r.text: r.split for r in rows} == {"train_a": "train", "train_b": "train", "valid": "validation", "test": "test"}
    refused(reader_of("table", tmp_path, split_files={**patterns, "test": "tests.csv"}), r"'tests\.csv' is none of its files \(test\.csv, ")
    refused(reader_of("table", tmp_path, split_files={"train": "train*"}), r"test\.csv, valid\.csv match no pattern")
    refused(reader_of("table", tmp_path, split_files={"train": "t*", "test": "te*", "validation": "v*"}), "is of two splits")


# --- FiQA


def test_fiqa_has_an_example_a_target(tmp_path: Path) -> None:
    info = [
        {"snippets": "['it's broken]", "target": "A", "sentiment_score": "-0.37", "aspects": "['Corporate/Risks', \"Stock/Price Action\"]"},
        {"target": "B", "sentiment score": 0.5, "aspects": ["X"]},
    ]
    content: dict[str, Any] = {"7": {"sentence": "A falls, B gains", "info": info}}
    bad = [
        {"sentence": 5},
        {"sentence": "x", "info": {}},
        {"sentence": "x", "info": [5]},
        {"sentence": "x", "info": [{"sentiment_score": "high"}]},
    ]
    content |= {f"bad{i}": entry for i, entry in enumerate(bad)} | {"a b\n": {"sentence": "flat", "sentiment_score": "0"}}
    (tmp_path / "train.json").write_text(json.dumps(content))
    rows = list(reader_of("fiqa", tmp_path).read())
    assert rows[:2] == [
        Example(
            "mine/train.json:7.1",
            "A falls, B gains",
            "negative",
            "mine",
            extra={"target": "A", "aspect": "Corporate/Risks; Stock/Price Action"},
        ),
        Example("mine/train.json:7.2", "A falls, B gains", "positive", "mine", extra={"target": "B", "aspect": "X"}),
    ]
    assert [(r.id, r.reason) for r in rows if isinstance(r, Rejection)] == [
        ("mine/train.json:bad0", "no sentence"),
        ("mine/train.json:bad1", "no list of targets under info"),
        ("mine/train.json:bad2.1", "a target that is no object"),
        ("mine/train.json:bad3.1", "score 'high' is no number"),
    ]
    assert rows[-1] == Example("mine/train.json:n6.1", "flat", "neutral", "mine", extra={"target": "", "aspect": ""})


def test_fiqa_as_a_list_and_with_a_key_twice(tmp_path: Path) -> None:
    entry = '{"sentence": "x", "info": [{"sentiment_score": "0"}]}'
    (tmp_path / "a.json").write_text(f"[{entry}, {entry}]")
    (tmp_path / "b.json").write_text(f'{{"1": {entry}, "1": {entry}}}')
    reader = reader_of("fiqa", tmp_path)
    assert isinstance(reader, FiqaReader)
    assert [r.id for r in examples(reader)] == [f"mine/{place}" for place in ("a.json:1.1", "a.json:2.1", "b.json:1.1", "b.json:n2.1")]


# --- archives and links


@pytest.mark.parametrize("name", ["../rows.csv", "/rows.csv", "a/../../rows.csv", "C:\\rows.csv", "..\\rows.csv", "a\nb.csv", "a\x00b.csv"])
def test_a_zip_member_that_leads_out_of_its_archive_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    # zipfile itself cuts a name at NUL and turns no backslash here, so the bad name is put in afterwards.
    harmless = "x" * len(name)
    content = as_zip({harmless: as_csv(SENTENCES)}).replace(harmless.encode(), name.encode())
    refused(table(tmp_path / "in", "all.zip", content), "leads out of it or has control characters")
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "all.zip"]


def test_encrypted_and_oddly_packed_members_are_refused(tmp_path: Path) -> None:
    content = bytearray(as_zip({"rows.csv": as_csv(SENTENCES)}))
    central = content.index(b"PK\x01\x02")
    content[central + 8] |= 1
    refused(table(tmp_path, "all.zip", bytes(content)), "is encrypted; unpack it")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("rows.csv", "text,label\n")
    refused(table(tmp_path, "all.zip", file.getvalue()), "packed by method 14")


def test_a_zip_reads_members_of_known_suffix_in_order(tmp_path: Path) -> None:
    members = {
        "b.jsonl": b'{"text": "b", "label": "x"}',
        "__MACOSX/._a.csv": b"\x00",
        "a.csv": as_csv([("a", "x")]),
        "README": b"",
        "d/.h.csv": b"",
    }
    assert [r.id for r in examples(table(tmp_path, "all.zip", as_zip(members)))] == ["mine/all.zip/a.csv:2", "mine/all.zip/b.jsonl:1"]
    refused(table(tmp_path, "all.zip", as_zip({"README": b""})), "holds no ")


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("suffix", ["gz", "zst", "zip"])
def test_a_decompression_bomb_is_refused(suffix: str, stated: bool, tmp_path: Path) -> None:
    content = b"text,label\n" + (b"a" * 100_000 + b",neutral\n") * 700
    if suffix == "gz":
        packed = gzip.compress(content, 6)
    elif suffix == "zst":
        packed = zstandard.ZstdCompressor(write_content_size=stated).compress(content)
    else:
        packed = as_zip({"rows.csv": content})
        packed = packed if stated else packed.replace(len(content).to_bytes(4, "little"), b"\1\0\0\0")
    name = "rows.zip" if suffix == "zip" else f"rows.csv.{suffix}"
    says = "cut off or damaged" if suffix == "zip" and not stated else "as only a decompression bomb does"
    refused(table(tmp_path, name, packed), says)


def test_a_zip_member_that_says_it_is_small_is_cut_by_what_it_holds(tmp_path: Path) -> None:
    content = bytearray(as_zip({"rows.csv": as_csv([("a", "neutral")] * 1000)}))
    central = content.index(b"PK\x01\x02")
    struct.pack_into("<I", content, central + 24, 100)
    refused(table(tmp_path, "all.zip", bytes(content)), "cut off or damaged")


def test_a_zip_with_a_packed_member_is_refused_not_read_in_part(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("a.csv", "text,label\na,x\n")
        archive.writestr("b.csv.gz", gzip.compress(b"text,label\nb,x\n"))
    with pytest.raises(DataError, match=r"holds 'b\.csv\.gz', which is packed once more; unpack the archive"):
        list(TableReader("mine", TableCorpus(path=str(tmp_path / "all.zip"), license="x", format="csv")).read())


def test_a_parquet_dictionary_bomb_is_refused(tmp_path: Path) -> None:
    rows = pa.array([0] * 50_000, pa.int32())
    columns = {name: pa.DictionaryArray.from_arrays(rows, pa.array([value])) for name, value in (("text", "x" * 20_000), ("label", "x"))}
    pq.write_table(pa.table(columns), tmp_path / "b.parquet")
    assert (tmp_path / "b.parquet").stat().st_size < 10_000
    with pytest.raises(DataError, match="as only a decompression bomb does"):
        list(TableReader("mine", TableCorpus(path=str(tmp_path / "b.parquet"), license="x", format="parquet")).read())


def test_json_with_many_values_before_its_rows_is_refused_not_cut(tmp_path: Path) -> None:
    content = {**{f"k{i}": i for i in range(1500)}, "row": {"text": "a", "label": "x"}}
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="more than 1000 single values before the first row"):
        list(TableReader("mine", TableCorpus(path=str(tmp_path / "a.json"), license="x", format="json")).read())


def test_several_gzip_members_and_zstd_frames_are_one_file(tmp_path: Path) -> None:
    parts = [b"text,label\na,x\n", b"b,x\n"]
    assert len(examples(table(tmp_path, "rows.csv.gz", b"".join(gzip.compress(p) for p in parts)))) == 2
    assert len(examples(table(tmp_path, "rows.csv.zst", b"".join(zstandard.ZstdCompressor().compress(p) for p in parts)))) == 2


def test_a_link_that_leads_out_of_the_data_is_refused(in_folder: Path) -> None:
    data = in_folder / "data/external"
    (data / "mine").mkdir(parents=True)
    (in_folder / "secret.csv").write_bytes(as_csv(SENTENCES))
    (data / "other.csv").write_bytes(as_csv(SENTENCES))
    (in_folder / ".dvc/cache").mkdir(parents=True)
    (in_folder / ".dvc/cache/ab").write_bytes(as_csv(SENTENCES))
    link = data / "mine/rows.csv"
    for target, fine in (("../other.csv", True), ("../../../.dvc/cache/ab", True), ("../../../secret.csv", False), ("/etc/passwd", False)):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        for path in ("data/external/mine", "data/external/mine/rows.csv", "data/external/mine/*.csv"):
            if fine:
                assert len(examples(reader_of("csv", Path(path)))) == 3
            else:
                refused(reader_of("csv", Path(path)), "leads out of the project's data")
    link.unlink()
    (data / "mine/folder").symlink_to("/etc")
    refused(reader_of("csv", Path("data/external/mine")), "is a link to a folder")


def test_a_file_of_unknown_suffix_needs_a_format(tmp_path: Path) -> None:
    refused(table(tmp_path, "rows.txt", as_csv(SENTENCES)), r"suffix '\.txt' is none of \.csv, .*set corpora\.mine\.format")
    assert len(examples(table(tmp_path, "rows.txt", as_csv(SENTENCES), format="csv"))) == 3
    assert len(examples(table(tmp_path, "rows.txt", as_json(SENTENCES), format="json"))) == 3
    refused(table(tmp_path, "b\x1b.csv", as_csv(SENTENCES), path=str(tmp_path)), "without control characters")


def test_what_the_disk_says_stays_an_error_of_the_disk(tmp_path: Path) -> None:
    guarded = compressed._Guarded(Failing(), "x", 1)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="Input/output error"):
        guarded.read(10)


class Failing:
    def read(self, size: int = -1) -> bytes:
        raise OSError(5, "Input/output error")


# --- PhraseBank


def test_a_sentence_without_a_label_is_rejected(tmp_path: Path) -> None:
    rows = list(phrasebank_reader(tmp_path, ["good@neutral", "no label here"]).read())
    assert rows[1] == Rejection("mine/Sentences_50Agree.txt:2", "mine", "no @ between sentence and label", "no label here")


@pytest.mark.parametrize(
    ("encoding", "found"), [("latin-1", "latin-1"), ("utf-8", "utf-8"), ("utf-8-sig", "utf-8-sig"), ("utf-16", "utf-16")]
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_phrasebank_comes_in_several_encodings(encoding: str, found: str, end: str, tmp_path: Path) -> None:
    reader = phrasebank_reader(tmp_path, ["Köln \x85 rose@positive", "b@neutral"], encoding, end)
    assert [r.text for r in examples(reader)] == ["Köln \x85 rose", "b"]
    assert reader.facts() == {"encodings": {FILES[50]: found}}


def test_agreement_comes_from_the_stricter_files(tmp_path: Path) -> None:
    lines = ["a@neutral", "b@neutral", "b@neutral", "c@positive"]
    (tmp_path / FILES[100]).write_text("b@neutral\n")
    (tmp_path / FILES[75]).write_text("b@neutral\nc@positive\n")
    rows = [r for r in phrasebank_reader(tmp_path, lines, end="\n").read() if isinstance(r, Example)]
    assert [r.agreement for r in rows] == [50, 100, 50, 75]
    (tmp_path / FILES[50]).unlink()
    refused(reader_of("phrasebank", tmp_path), "holds no Sentences_50Agree.txt")


def test_a_phrasebank_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "all.zip").write_bytes(as_zip({f"FinancialPhraseBank-v1.0/{FILES[50]}": b"a@neutral"}))
    assert [r.id for r in examples(reader_of("phrasebank", tmp_path / "all.zip"))] == [f"mine/{FILES[50]}:1"]
    refused(phrasebank_reader(tmp_path, ["a@neutral"]), "holds Sentences_50Agree.txt twice")


def test_the_official_phrasebank(phrasebank: Path) -> None:
    import csv

    params = PhraseBankCorpus(path=str(phrasebank), license="x", format="phrasebank", split="finbert")
    rows = [r for r in PhraseBankReader("pb", params).read() if isinstance(r, Example)]
    assert Counter(r.label for r in rows) == {"negative": 604, "neutral": 2879, "positive": 1363}
    with (phrasebank / "finbert_split.csv").open() as file:
        listed = list(csv.DictReader(file))
    assert [(r.split, r.agreement) for r in rows] == [(row["split"], int(row["agreement"])) for row in listed]
    strict = PhraseBankCorpus(path=str(phrasebank), license="x", format="phrasebank", agreement=100)
    assert len(list(PhraseBankReader("pb", strict).read())) == 2264
