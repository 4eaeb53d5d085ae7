"""One suite for every CorpusReader, and what each format asks beyond it."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from finsight.adapters.csv_corpus import CsvReader
from finsight.adapters.phrasebank_corpus import FILES, PhraseBankReader
from finsight.domain.records import Example, Rejection
from finsight.errors import DataError, ParamsError
from finsight.params.corpora import CsvCorpus, PhraseBankCorpus
from finsight.ports import CorpusReader

SENTENCES = [("Profit rose to EUR 2 mn .", "positive"), ("Köln sales fell @ 3 % .", "negative"), ("The firm is in Oslo .", "neutral")]


def csv_reader(folder: Path, content: str | bytes, **params: Any) -> CsvReader:
    path = folder / "rows.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return CsvReader("mine", CsvCorpus(path=str(path), license="CC0-1.0", format="csv", **params))


def phrasebank_reader(folder: Path, lines: list[str], encoding: str = "latin-1", end: str = "\r\n", **params: Any) -> PhraseBankReader:
    (folder / FILES[50]).write_bytes((end.join(lines) + end).encode(encoding))
    return PhraseBankReader("mine", PhraseBankCorpus(path=str(folder), license="x", format="phrasebank", **params))


@pytest.fixture(params=["csv", "phrasebank"])
def reader(request: pytest.FixtureRequest, tmp_path: Path) -> CorpusReader:
    if request.param == "csv":
        return csv_reader(tmp_path, "text,label\r\n" + "".join(f'"{t}",{label}\r\n' for t, label in SENTENCES))
    return phrasebank_reader(tmp_path, [f"{t}@{label}" for t, label in SENTENCES])


def test_rows_come_in_order_with_text_label_and_a_place(reader: CorpusReader) -> None:
    rows = list(reader.read())
    assert [(r.text, r.label) for r in rows if isinstance(r, Example)] == SENTENCES
    ids = [r.id for r in rows]
    assert len(set(ids)) == 3
    assert all(i.startswith("mine/") and i.rpartition(":")[2].isdigit() for i in ids)


def test_reading_twice_gives_the_same(reader: CorpusReader) -> None:
    assert list(reader.read()) == list(reader.read())


@pytest.mark.parametrize(
    "make",
    [
        lambda p: CsvReader("m", CsvCorpus(path=str(p), license="x", format="csv")),
        lambda p: PhraseBankReader("m", PhraseBankCorpus(path=str(p), license="x", format="phrasebank")),
    ],
)
def test_a_missing_corpus_says_how_to_bring_it_in(make: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="finsight corpus add m"):
        list(make(tmp_path / "none").read())


def test_csv_with_bom_tabs_quoted_line_breaks_and_own_columns(tmp_path: Path) -> None:
    content = '\ufeffid\tsentence\tmood\tpart\n7\t"one\n\ntwo ""three"""\t1\ttest\n\n8\tfour\tup\t\n'
    reader = csv_reader(
        tmp_path, content, delimiter="\t", text="sentence", label="mood", split="part", label_map={1: "positive", "up": "positive"}
    )
    assert list(reader.read()) == [
        Example("mine/rows.csv:2", 'one\n\ntwo "three"', "positive", "mine", "test"),
        Example("mine/rows.csv:6", "four", "positive", "mine", None),
    ]


def test_a_folder_of_csv_files_is_one_corpus(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{name},neutral\n")
    reader = CsvReader("mine", CsvCorpus(path=str(tmp_path), license="x", format="csv"))
    assert [r.id for r in reader.read()] == ["mine/a.csv:2", "mine/b.csv:2"]


def test_ragged_rows_are_rejected_and_the_rest_is_read(tmp_path: Path) -> None:
    rows = list(csv_reader(tmp_path, "text,label\na,neutral\nb\nc,neutral,x\nd,neutral\n").read())
    assert [type(r) for r in rows] == [Example, Rejection, Rejection, Example]
    assert rows[1] == Rejection("mine/rows.csv:3", "mine", "1 columns where the header has 2", "['b']")


@pytest.mark.parametrize(
    ("content", "params", "says"),
    [
        (b"text,label\nok,neutral\ncaf\xe9,neutral\n", {}, r"rows\.csv: line 3: byte 0xe9 is not utf-8-sig; set corpora\.mine\.encoding"),
        (b"text,label\ncut off \xc3", {}, r"rows\.csv: line 2: byte 0xc3 is not utf-8-sig"),
        ("headline,label\na,neutral\n", {}, r"no column 'text' in \['headline', 'label'\]; set corpora\.mine\.text"),
        ("text;label\na;neutral\n", {}, r"no column 'text' in \['text;label'\]; set corpora\.mine\.text or \.delimiter"),
        ("text,text,label\na,b,neutral\n", {}, "names a column twice"),
        ('text,label\n"a"b,neutral\n', {}, r"line 2: not CSV: .*check its quotes"),
        ("text,label\n" + "x" * 200_000 + ",neutral\n", {}, r"line 2: not CSV: field larger than field limit"),
        ("", {}, r"no column 'text' in \[\]"),
    ],
)
def test_what_is_no_such_csv_is_named_by_place(tmp_path: Path, content: str | bytes, params: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        list(csv_reader(tmp_path, content, **params).read())


def test_an_unknown_encoding_is_a_wrong_parameter(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"corpora\.mine\.encoding: 'utf-9' is no text encoding"):
        list(csv_reader(tmp_path, "text,label\n", encoding="utf-9").read())


def test_a_sentence_without_a_label_is_rejected(tmp_path: Path) -> None:
    rows = list(phrasebank_reader(tmp_path, ["good@neutral", "no label here"]).read())
    assert rows[1] == Rejection("mine/Sentences_50Agree.txt:2", "mine", "no @ between sentence and label", "no label here")


def test_agreement_comes_from_the_stricter_files(tmp_path: Path) -> None:
    lines = ["a@neutral", "b@neutral", "b@neutral", "c@positive"]
    (tmp_path / FILES[100]).write_text("b@neutral\n")
    (tmp_path / FILES[75]).write_text("b@neutral\nc@positive\n")
    rows = [r for r in phrasebank_reader(tmp_path, lines, end="\n").read() if isinstance(r, Example)]
    assert [r.agreement for r in rows] == [50, 100, 50, 75]


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
