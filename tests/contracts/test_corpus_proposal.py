"""What `finsight corpus add` and `corpus show` say of each format; the proposed block, pasted, must load and read the corpus."""

import csv
import gzip
import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from conftest import LABELS, REPO, starter_rows
from finsight import bootstrap
from finsight.adapters.proposal import label_map, propose
from finsight.adapters.sniff import look
from finsight.cli import main
from finsight.domain.records import Example, Rejection
from finsight.params.file import load_params
from finsight.pipeline.columns import guess_header, guess_roles, split_of
from finsight.pipeline.corpus_facts import gather

ROWS = [{**row, "text": row["text"].encode("ascii", errors="ignore").decode()} for row in starter_rows(80)]
N = len(ROWS)


def delimited(rows: Sequence[Sequence[str]], delimiter: str, encoding: str = "utf-8") -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return text.getvalue().encode(encoding)


def workbook(rows: Sequence[Sequence[str]]) -> bytes:
    """The least that is an .xlsx file."""
    cells = "".join("<row>" + "".join(f'<c t="inlineStr"><is><t>{escape(c)}</t></is></c>' for c in row) + "</row>" for row in rows)
    ns, office = "http://schemas.openxmlformats.org", "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{ns}/package/2006/content-types"><Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/xl/workbook.xml" '
        'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/><Override PartName="/xl/s.xml" '
        'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{ns}/package/2006/relationships"><Relationship Id="r1" Type="{office}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{ns}/spreadsheetml/2006/main" xmlns:r="{office}"><sheets><sheet name="News" sheetId="1" '
        'r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{ns}/package/2006/relationships"><Relationship Id="r1" '
        f'Type="{office}/worksheet" Target="s.xml"/></Relationships>',
        "xl/s.xml": f'<worksheet xmlns="{ns}/spreadsheetml/2006/main"><sheetData>{cells}</sheetData></worksheet>',
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return content.getvalue()


def parquet(columns: dict[str, Sequence[object]]) -> bytes:
    content = io.BytesIO()
    pq.write_table(pa.table({name: list(values) for name, values in columns.items()}), content)
    return content.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


TEXTS, MOODS = [r["text"] for r in ROWS], [r["label"] for r in ROWS]
MARKET = {"negative": "Bearish", "neutral": "Neutral", "positive": "Bullish"}
PAIRS = [list(pair) for pair in zip(TEXTS, MOODS, strict=True)]
OBJECTS = [{"id": i, "headline": t, "sentiment": MARKET[m], "tags": ["a"]} for i, (t, m) in enumerate(PAIRS)]
FIQA = {
    str(i): {"sentence": t, "info": [{"snippets": "['x']", "target": "X", "sentiment_score": "-0.5", "aspects": "['Stock/Price']"}]}
    for i, t in enumerate(TEXTS)
}
BANK = "".join(f"{t}@{m}\r\n" for t, m in PAIRS).replace("€", "EUR").encode("latin-1", errors="replace")
MAPPED = ["label_map:", "Bearish: negative", "Bullish: positive", "Neutral: neutral"]

# Files, what the block must say, rows that are read.
FORMATS: dict[str, tuple[dict[str, bytes], list[str], int]] = {
    "phrasebank": (
        {"Sentences_66Agree.txt": BANK, "Sentences_AllAgree.txt": BANK[: BANK.index(b"\r\n") + 2], "License.txt": b"", "README.txt": b""},
        ["format: phrasebank", "agreement: 66", "known_as: phrasebank", "license: CC-BY-NC-SA-3.0"],
        N,
    ),
    "fiqa": (
        {"task1_headline_ABSA_train.json": json.dumps(FIQA).encode()},
        ["format: fiqa", "thresholds: {negative: -0.1, neutral: 0.1, positive: 1.0}", "known_as: fiqa"],
        N,
    ),
    "csv, semicolons, no header": (
        {"rows.csv": delimited([[m, t] for t, m in PAIRS], ";")},
        ["format: csv", 'delimiter: ";"', "header: false", "text: 1", "label: 0"],
        N,
    ),
    "csv, a bar": ({"rows.csv": delimited([["mood", "note"], *[[m, t] for t, m in PAIRS]], "|")}, ['delimiter: "|"', "text: note"], N),
    "csv, cp1252": (
        {"rows.csv": delimited([["text", "label"], *[[f"{t} – Málaga’s café", m] for t, m in PAIRS]], ",", "cp1252")},
        ["encoding: cp1252"],
        N,
    ),
    "csv, utf-16": ({"rows.csv": delimited([["text", "label"], *PAIRS], ",", "utf-16")}, ["text: text", "label: label"], N),
    "tsv": ({"rows.tsv": delimited([["text", "label"], *PAIRS], "\t")}, ["format: csv", "text: text", "label: label"], N),
    "json": ({"rows.json": json.dumps(OBJECTS).encode()}, ["format: json", "text: headline", "label: sentiment", *MAPPED], N),
    "jsonl": (
        {"rows.jsonl": "".join(json.dumps(o) + "\n" for o in OBJECTS).encode()},
        ["format: jsonl", "text: headline", "label: sentiment", *MAPPED],
        N,
    ),
    "jsonl.gz": ({"rows.jsonl.gz": gzip.compress("".join(json.dumps(o) + "\n" for o in OBJECTS).encode())}, ["format: jsonl"], N),
    "parquet": (
        {"rows.parquet": parquet({"sentence": TEXTS, "label": [LABELS.index(m) for m in MOODS], "date": ["2024-01-02"] * N})},
        ["format: parquet", "text: sentence", "date: date", "#   0: ?", "#   2: ?"],
        N,
    ),
    "xlsx": ({"rows.xlsx": workbook([["text", "label"], *PAIRS])}, ["format: excel", "text: text", "label: label"], N),
    "zip": ({"all.zip": zipped({"a/rows.csv": delimited([["text", "label"], *PAIRS], ",")})}, ["format: csv", "text: text"], N),
    "one file a split": (
        {f"data/{s}-0{i}.csv": delimited([["text", "label"], *PAIRS], ",") for s in ("train", "test") for i in (0, 1)},
        ["split_files: {train:", "data/train-0*.csv", "data/test-0*.csv"],
        4 * N,
    ),
    "several formats": (
        {"a.csv": delimited([["text", "label"], *PAIRS], ","), "b.jsonl": json.dumps({"text": "x y", "label": "neutral"}).encode()},
        ["format: table"],
        N + 1,
    ),
    "scores": (
        {"rows.csv": delimited([["title", "sentiment_score"], *[[t, f"{i / N - 0.5:.4f}"] for i, t in enumerate(TEXTS)]], ",")},
        ["score: sentiment_score", "thresholds: {negative: -0.1"],
        N,
    ),
    "all columns": (
        {
            "rows.csv": delimited(
                [
                    ["Date", "Ticker", "Title", "Split", "Agreement", "Class"],
                    *[["31/12/2024", "X", t, ("train", "validation", "test")[i % 3], "75", m] for i, (t, m) in enumerate(PAIRS)],
                ],
                ",",
            )
        },
        ["text: Title", "label: Class", "split: Split", "date: Date", 'date_format: "%d/%m/%Y"', "agreement: Agreement"],
        N,
    ),
}


@pytest.fixture
def project(in_folder: Path) -> Path:
    for name in ("params.yaml", "dvc.yaml"):
        (in_folder / name).write_text((REPO / name).read_text())
    return in_folder


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def paste(output: str) -> None:
    """Put the proposed block where the text says."""
    block = output.partition("unless it is there:\n\n")[2].partition("\n\nThen:")[0]
    content = Path("params.yaml").read_text()
    Path("params.yaml").write_text(content.replace("\ncorpora:\n", f"\ncorpora:\n{block}\n", 1))


def rejected(name: str) -> list[Rejection]:
    return [r for r in bootstrap.reader(name, load_params().corpora[name]).read() if isinstance(r, Rejection)]


@pytest.mark.parametrize("kind", FORMATS)
def test_the_block_that_is_proposed_reads_the_corpus(kind: str, project: Path) -> None:
    files, wanted, rows = FORMATS[kind]
    folder = write(Path("data/external/mine"), files)
    output = propose("mine", folder, LABELS, "somewhere", bootstrap.reader)
    for line in wanted:
        assert line in output, output
    assert f"rows        {rows:,} rows" in output
    assert "Then: dvc exp run -S 'ingest.corpora=[mine]'" in output
    paste(output)
    corpus = load_params().corpora["mine"]
    found = list(bootstrap.reader("mine", corpus).read())
    assert len(found) == rows
    assert all(isinstance(row, Example) for row in found), found[0]
    if "label_map" not in output:
        assert {row.label for row in found} <= set(LABELS)
    done = CliRunner().invoke(main, ["corpus", "show", "mine"])
    assert done.exit_code == 0, done.output
    assert f"rows        {rows:,} rows" in done.output


def test_the_twitter_corpus_is_known_by_its_name(project: Path) -> None:
    numbers = {"negative": "0", "positive": "1", "neutral": "2"}
    rows = delimited([["text", "label"], *[[t, numbers[m]] for t, m in PAIRS]], ",")
    folder = write(Path("data/external/tweets"), {"sent_train.csv": rows, "sent_valid.csv": rows})
    output = propose("tweets", folder, LABELS, "hf://datasets/zeroshot/twitter-financial-news-sentiment", bootstrap.reader)
    paste(output)
    corpus = load_params().corpora["tweets"]
    assert (corpus.known_as, corpus.license) == ("twitter-financial-news", "MIT")
    assert corpus.label_map == {0: "negative", 1: "positive", 2: "neutral"}
    assert corpus.split_files == {"train": "sent_train.csv", "validation": "sent_valid.csv"}


def test_labels_that_say_nothing_are_left_to_a_person() -> None:
    lines = label_map({"0": 5, "negative": 3, "Up": 2, "yes: no": 1}, ["negative", "Up", "down"], {})
    assert lines[0] == "    # label_map:"
    assert "    #   0: ?   # 5 rows" in lines
    assert '    #   "yes: no": ?   # 1 rows' in lines
    assert label_map({"Up": 2, "down": 1}, ["negative", "Up", "down"], {}) == []
    mixed = label_map({"UP": 9, "7": 2}, ["Up", "down"], {})
    assert mixed[0] == "    label_map:"
    assert mixed[2:] == ["      UP: Up   # 9 rows", "      # 7: ?   # 2 rows"]
    assert label_map({"bullish": 1}, ["good", "bad"], {})[0] == "    # label_map:", "a synonym of labels that are not the user's"


def test_what_can_not_be_read_is_said_and_nothing_proposed(project: Path) -> None:
    folder = write(Path("data/external/mine"), {"notes.doc": b"x"})
    assert propose("mine", folder, LABELS, "x", bootstrap.reader).startswith("No block is proposed: data/external/mine: holds no ")
    folder = write(Path("data/external/bad"), {"rows.parquet": b"no parquet"})
    assert propose("bad", folder, LABELS, "x", bootstrap.reader).startswith("No block is proposed: data/external/bad/rows.parquet: ")
    folder = write(Path("data/external/one"), {"rows.csv": b"a\nsome words of text\nother words of text\n"})
    assert "    # label:   # no column looks like a label: name one" in propose("one", folder, LABELS, "x", bootstrap.reader)


def test_counts_of_what_a_person_should_know(project: Path) -> None:
    rows = [
        ["Profit rose", "positive"],
        ["Profit  rose", "negative"],
        ["Profit rose", "positive"],
        ["CafÃ© opens \x1b[2J", "neutral"],
        [" ", "neutral"],
        ["lost \ufffd here", "neutral"],
    ]
    folder = write(Path("data/external/mine"), {"rows.csv": delimited([["text", "label"], *rows, ["a", "b", "c"]], ",")})
    output = propose("mine", folder, LABELS, "x", bootstrap.reader)
    assert "duplicates  2 rows repeat an earlier text; 1 texts stand with more than one label" in output
    assert "damaged     2 rows look as if they had been decoded wrongly once; repair_mojibake changes 1" in output
    assert "repair_mojibake: true" in output
    assert re.search(r"unfit +3 columns where the header has 2 1, empty text 1", output)
    assert "\x1b" not in output


def test_statistics_are_cut_and_say_so() -> None:
    facts = gather((Example(str(i), f"text {i}", "a", "c") for i in range(50)), lambda text: False, str, most=20)
    assert (facts.rows, facts.cut, facts.words) == (20, True, {5: 2, 50: 2, 95: 2, 100: 2})
    assert [text for _, text in facts.shown] == ["text 0", "text 5", "text 10", "text 14", "text 19"]
    assert not gather(iter([]), lambda text: False, str).cut


def test_splits_by_file_name() -> None:
    assert split_of("data/train-00000-of-00001.parquet") == "train"
    assert split_of("sent_valid.csv") == split_of("dev.tsv") == "validation"
    assert split_of("testing.csv") == "test"
    assert split_of("train_test.csv") is split_of("latest.csv") is split_of("train/rows.csv") is None


def test_headers_and_roles() -> None:
    assert guess_header(["Sentence", "Mood"], [["a", "b"]])
    assert guess_header(["foo", "bar"], [["x", "good"], ["y", "bad"]])
    assert not guess_header(["Shares fell", "bad"], [["x", "good"], ["y", "bad"]])
    assert not guess_header(["Shares fell", "1"], [])
    assert not guess_header(["neutral", "A sentence of some length that goes on and on, as sentences of reports do"], [])
    few = {"uid": [str(i) for i in range(40)], "body": ["a long enough text"] * 40, "kind": ["x", "y"] * 20, "flag": ["p", "q"] * 20}
    roles = guess_roles(few)
    assert (roles.text, roles.label) == ("body", "flag")
    assert guess_roles({"text": ["some words here"], "label": ["1"], "score": ["0.5"]}).score is None


def test_a_split_in_other_words_is_proposed_with_how_they_are_read(project: Path) -> None:
    rows = [[t, m, ("train", "dev")[i % 2]] for i, (t, m) in enumerate(PAIRS)]
    folder = write(Path("data/external/mine"), {"rows.csv": delimited([["text", "label", "split"], *rows], ",")})
    output = propose("mine", folder, LABELS, "x", bootstrap.reader)
    assert "    split: split   # dev is read as validation" in output


def test_a_guess_is_not_led_astray_by_commas(project: Path) -> None:
    rows = [[f"In {i}, sales, costs, and profit rose", "positive"] for i in range(30)]
    folder = write(Path("data/external/mine"), {"rows.csv": delimited([["text", "label"], *rows], ";")})
    assert look("mine", folder).params == {"format": "csv", "delimiter": ";", "text": "text", "label": "label"}


def run(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["corpus", *arguments])
    return f"{done.exit_code} {done.output}"


def test_add_and_show_in_a_checkout(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    source = write(tmp_path_factory.mktemp("source"), {"rows.csv": delimited([["headline", "mood"], *PAIRS], ",")}) / "rows.csv"
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], check=True)
    Path("data/external").mkdir(parents=True)
    output = run("add", "mine", str(source))
    assert output.startswith("0 data/external/mine is under DVC, and data/external/mine.dvc is staged in git: commit it")
    assert re.search(r"SHA-256 [0-9a-f]{64}, recorded there; with --sha256 only the very same would be taken\.", output)
    assert "text: headline   # columns here: headline, mood" in output
    assert "is not under corpora in params.yaml (there: phrasebank, starter)" in run("show", "mine")
    paste(output)
    shown = run("show", "mine")
    assert "source      rows.csv" in shown
    assert "licence     UNKNOWN" in shown
    assert "1 error: data/external/mine: is there already" in run("add", "mine", str(source))
    assert "1 error: 127.0.0.1: not a public address" in run("add", "other", "http://127.0.0.1:1/x.csv")


@pytest.fixture
def official(phrasebank: Path) -> Callable[[Path], Path]:
    def link(folder: Path) -> Path:
        return write(folder, {p.name: p.read_bytes() for p in phrasebank.glob("Sentences_*.txt")})

    return link


def test_the_official_phrasebank(official: Callable[[Path], Path], project: Path) -> None:
    folder = official(Path("data/external/bank"))
    output = propose("bank", folder, LABELS, "x", bootstrap.reader)
    assert "labels      neutral 2,879, positive 1,363, negative 604" in output
    assert "splits      train 3,488, test 970, validation 388" in output
    paste(output)
    assert load_params().corpora["bank"].format == "phrasebank"
