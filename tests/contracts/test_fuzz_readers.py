"""Files that are damaged or made to deceive: each ends in rows and rejections, or in one line.

A seeded mutator over the valid files of every reader. FINSIGHT_FUZZ=seed:number runs one case again.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import random
import re
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpora import LIMITS, as_xlsx, as_zip, files, reader_of
from finsight.domain.records import Example, Rejection, content_hash, examine, normalise
from finsight.errors import FinsightError
from finsight.params.corpora import TableCorpus

SEED = 20261123
LABELS = ["negative", "neutral", "positive"]
PAIRS = [
    (text, LABELS[i % 3])
    for i, text in enumerate(
        [
            "Profit rose 2 %",
            "Köln sales fell, again",
            'He said "no"',
            "line\nbreak",
            "a@b",
            "$TSLA up",
            "-5",
            "é",
            "x" * 300,
            "利益",
            "tab\tin it",
            "+1",
        ]
    )
]
VALID = files(PAIRS)
SECONDS = 5.0

CELLS: list[Any] = [
    "", " ", "\x00", "a\x00b", "=cmd|' /C calc'!A0", "@SUM(1)", "\ufeff", "\u2028", "\ud7ff", "\U0010ffff", "\x85", "\r",
    "a\nb\r\nc", '"', "'", ",", ";",
    "nan", "NaN", "inf", "-inf", "1e999", "9" * 5000, "0x10", "1_000", "٣", "-0", "75%", "%", "101", "2024-02-30",
    "0000-00-00", "9999-12-31T23:59:59-14:00",
    "0001-01-01T00:00:00+14:00", "2024-W01-1", "neutral", "NEUTRAL", "1.0", "None", "null", "../../x", "x" * 100_000,
]  # fmt: skip
VALUES: list[Any] = [*CELLS, None, True, False, 0, 1, -1, 1.0, 0.5, 10**18, [], {}, [1, [2]], {"a": {"b": None}}, "\ud800", "a\udfff"]


@dataclass
class Case:
    """A corpus on disk and how it is read; ``rows`` where their number is known."""

    reader: str
    files: dict[str, bytes]
    params: dict[str, Any] = field(default_factory=dict)
    rows: int | None = None
    what: str = ""


# --- whole bytes


def truncate(r: random.Random, b: bytes) -> bytes:
    return b[: r.randrange(len(b) + 1)]


def flip(r: random.Random, b: bytes) -> bytes:
    out = bytearray(b)
    for _ in range(r.choice([1, 1, 2, 8, 64])):
        if out:
            out[r.randrange(len(out))] ^= 1 << r.randrange(8)
    return bytes(out)


def cut_out(r: random.Random, b: bytes) -> bytes:
    at = r.randrange(len(b) + 1)
    return b[:at] + b[at + r.choice([1, 3, 40]) :]


def repeat(r: random.Random, b: bytes) -> bytes:
    at = r.randrange(len(b) + 1)
    return b[:at] + b[at : at + r.choice([1, 10, 500])] * r.choice([2, 50]) + b[at:]


def insert(*parts: bytes) -> Callable[[random.Random, bytes], bytes]:
    def mutate(r: random.Random, b: bytes) -> bytes:
        at = r.choice([0, len(b), r.randrange(len(b) + 1)])
        return b[:at] + r.choice(parts) + b[at:]

    return mutate


def noise(r: random.Random, b: bytes) -> bytes:
    at = r.randrange(len(b) + 1)
    return b[:at] + r.randbytes(r.choice([1, 16, 3000])) + b[at:]


def swap_line_ends(r: random.Random, b: bytes) -> bytes:
    return b.replace(b"\r\n", b"\n").replace(b"\n", r.choice([b"\r", b"\r\n", b"\n\n", b"\x0b"]))


BYTES: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "truncate": truncate,
    "flip": flip,
    "cut out": cut_out,
    "repeat": repeat,
    "NUL": insert(b"\x00", b"\x00" * 1000),
    "encodings": insert(
        "Köln é".encode("latin-1"),
        "Köln".encode("utf-16"),
        "Прибыль".encode("cp1251"),
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"\x80",
    ),
    "huge field": insert(b"x" * 200_000, b"9" * 6000, b"1" + b"0" * 400, b"1e99999"),
    "deep": insert(b"[" * 100_000, b'{"a":' * 20_000, b"[" * 70),
    "formula": insert(b"=1+1", b'=HYPERLINK("http://x")', b'","', b'"', b"\n", b",,,,"),
    "noise": noise,
    "line ends": swap_line_ends,
    "empty": lambda r, b: b"",
}


def mutate_bytes(r: random.Random) -> Case:
    format = r.choice(sorted(VALID))
    name, content = VALID[format]
    names = [r.choice(sorted(BYTES)) for _ in range(r.choice([1, 1, 1, 2, 3]))]
    for n in names:
        content = BYTES[n](r, content)
    params: dict[str, Any] = {}
    if r.random() < 0.2:
        params["encoding"] = r.choice(
            ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-16-le", "utf-32", "cp037", "utf-7", "gb18030", "nosuch"]
        )
    return Case(format, {name: content}, params, what=", ".join(names))


# --- cells, where the number of rows is known


def mutate_cells(r: random.Random) -> Case:
    format = r.choice(["csv", "tsv", "json", "jsonl", "parquet", "excel", "fiqa"])
    n = r.randrange(1, 20)
    pool = CELLS if format in ("csv", "tsv", "excel") else VALUES
    if format in ("json", "fiqa"):  # whose parser takes no half of a character
        pool = [v for v in VALUES if not (isinstance(v, str) and re.search("[\ud800-\udfff]", v))]
    columns = ["text", "label", "score", "on", "agree", "firm", "kind"]
    rows = [
        {c: r.choice(pool) if r.random() < 0.5 else {"text": f"text {i}", "label": "neutral"}.get(c, "1") for c in columns}
        for i in range(n)
    ]
    params: dict[str, Any] = {}
    for key, value in (("date", "on"), ("agreement", "agree"), ("group", "firm"), ("keep", ["kind"])):
        if r.random() < 0.5:
            params[key] = value
    if r.random() < 0.3:
        params |= {"score": "score", "thresholds": LIMITS}
    if r.random() < 0.3:
        params["label_map"] = r.choice([{1: "positive"}, {"": None}, {"neutral": None, "1": "neutral"}])
    name, content = write(format, columns, rows)
    if format == "fiqa":
        params = {}
    return Case(format, {name: content}, params, rows=n, what="cells")


def write(format: str, columns: list[str], rows: list[dict[str, Any]]) -> tuple[str, bytes]:
    if format in ("csv", "tsv"):
        file = io.StringIO(newline="")
        writer = csv.writer(file, delimiter="\t" if format == "tsv" else ",", quoting=csv.QUOTE_ALL)
        writer.writerows([columns, *([row[c] for c in columns] for row in rows)])
        return f"rows.{format}", file.getvalue().encode()
    if format == "json":
        return "rows.json", json.dumps(rows).encode()
    if format == "jsonl":
        return "rows.jsonl", "\n".join(json.dumps(row) for row in rows).encode()
    if format == "parquet":
        sound = [{c: str(v).encode(errors="replace").decode() if v is not None else None for c, v in row.items()} for row in rows]
        file_ = io.BytesIO()
        pq.write_table(pa.table({c: [row[c] for row in sound] for c in columns}), file_)
        return "rows.parquet", file_.getvalue()
    if format == "excel":
        # XML 1.0 has no control characters, and a sheet no text of more than 32,767 characters.
        cells = [
            [re.sub(r"[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", row[c])[:30_000] or "." for c in columns] for row in rows
        ]
        return "rows.xlsx", as_xlsx([columns, *cells])
    entries = {
        str(i): {"sentence": row["text"], "info": [{"target": row["firm"], "sentiment_score": row["score"], "aspects": row["kind"]}]}
        for i, row in enumerate(rows)
    }
    return "train.json", json.dumps(entries).encode()


# --- made to deceive


def raw_zip(members: list[tuple[str, bytes]], r: random.Random) -> bytes:
    """A zip file with names that zipfile would not write."""
    stand_ins = [f"{i:03d}" + "x" * max(0, len(name.encode()) - 3) for i, (name, _) in enumerate(members)]
    content = as_zip(dict(zip(stand_ins, (c for _, c in members), strict=True)))
    for stand_in, (name, _) in zip(stand_ins, members, strict=True):
        content = content.replace(stand_in.encode(), name.encode())
    if r.random() < 0.2:
        at = content.index(b"PK\x01\x02") + 8
        content = content[:at] + bytes([content[at] | 1]) + content[at + 1 :]
    return content


NAMES = [
    "../../../escape.csv", "/tmp/escape.csv", "a/../../escape.csv", "..\\escape.csv", "C:\\escape.csv",
    "a\nb.csv", "a\x00b.csv", "a\x1b[31m.csv", "rows.csv",
    "rows.json", "nul.csv", ".hidden.csv", "__MACOSX/._rows.csv", "d/rows.csv", "é.csv", "x" * 300 + ".csv", "\u202egnp.csv", "rows.csv/",
]  # fmt: skip


def hostile(r: random.Random) -> Case:
    match r.randrange(5):
        case 0:
            members = [(r.choice(NAMES), b"text,label\na,neutral\n") for _ in range(r.randrange(1, 4))]
            return Case("csv+zip", {"all.zip": raw_zip(members, r)}, what="names in a zip")
        case 1:
            size = r.choice([70, 100]) << 20
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive, archive.open("rows.csv", "w") as member:
                member.write(b"text,label\n")
                line = b"a" * 100_000 + b",neutral\n"
                for _ in range(size // len(line)):
                    member.write(line)
            content = file.getvalue()
            if r.random() < 0.5:  # a lie about its size
                content = content[: content.index(b"PK\x01\x02") + 24] + b"\x10\0\0\0" + content[content.index(b"PK\x01\x02") + 28 :]
            return Case("csv+zip", {"all.zip": content}, what="zip bomb")
        case 2:
            far = r.choice(["XFD1048576", "A1048576", "XFD1", "ZZZZ1", "A99999999", "A0", "", "1A"])
            rows = "".join(
                f'<row r="{i}"><c r="{a}"><v>{v}</v></c></row>'
                for i, a, v in ((1, "A1", "1"), (r.choice([2, 10**6, 10**9, -1]), far, "1e999"))
            )
            return Case("excel", {"rows.xlsx": as_xlsx([], f"<worksheet><sheetData>{rows}</sheetData></worksheet>")}, what="far cells")
        case 3:
            entity = (
                '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
                '<worksheet><sheetData><row r="1"><c r="A1" t="inlineStr">'
            )
            body = r.choice(["&b;", "&#0;", "&#xD800;", "<t>", "]]>", "<![CDATA[text]]>"])
            return Case(
                "excel", {"rows.xlsx": as_xlsx([], f"{entity}<is><t>{body}</t></is></c></row></sheetData></worksheet>")}, what="XML"
            )
        case _:
            inner = VALID[r.choice(["json", "jsonl", "csv", "parquet"])]
            return Case(
                "csv+zip",
                {"all.zip": as_zip({"in.zip": as_zip({inner[0]: inner[1]}), inner[0]: BYTES[r.choice(sorted(BYTES))](r, inner[1])})},
                what="zip in zip",
            )


def several(r: random.Random) -> Case:
    """A folder of files, one of them damaged, with split_files."""
    names = {f"{part}.csv": VALID["csv"][1] for part in ("train", "valid", "test")}
    victim = r.choice(sorted(names))
    names[victim] = BYTES[r.choice(sorted(BYTES))](r, names[victim])
    patterns = {"train": "train*", "validation": r.choice(["valid.csv", "*.csv", "[", "none"]), "test": "test.csv"}
    return Case("csv", names, {"split_files": patterns}, what="several files")


def make(seed: int, number: int) -> Case:
    r = random.Random(f"{seed}:{number}")
    return r.choices([mutate_bytes, mutate_cells, several, hostile], [60, 30, 4, 6])[0](r)


# --- running


def outcome(case: Case, folder: Path) -> str:
    """What came of a case; raises AssertionError when that is none of the allowed."""
    for name, content in case.files.items():
        (folder / name).write_bytes(content)
    params = dict(case.params)
    if case.reader.startswith(("phrasebank", "fiqa")):
        params = {k: v for k, v in params.items() if k == "encoding"}
    elif set(params) - set(TableCorpus.model_fields):
        raise AssertionError(params)
    started = time.process_time()
    try:
        rows = list(reader_of(case.reader, folder, **params).read())
    except FinsightError as error:
        message = str(error)
        assert re.search(r"[\x00-\x1f\x7f]", message) is None, message
        assert len(message) < 1500, message
        message.encode()
        assert case.rows is None, f"{case.rows} rows ended in: {message}"
        found = type(error).__name__
    else:
        judged = [examine(row, LABELS) if isinstance(row, Example) else row for row in rows]
        check_writable(judged)
        assert case.rows is None or len(rows) == case.rows, f"{len(rows)} rows of {case.rows}"
        assert len({row.id for row in rows}) == len(rows)
        found = "rows and rejections" if any(isinstance(row, Rejection) for row in judged) else "rows"
    spent = time.process_time() - started
    assert spent < SECONDS, f"took {spent:.1f} s"
    return found


def check_writable(rows: list[Example | Rejection]) -> None:
    """All that ingest will write fits into a table."""
    for row in rows:
        if isinstance(row, Rejection):
            pa.array([row.id, row.reason, row.raw])
            assert len(row.raw) < 500_000
            assert "\n" not in row.id
        else:
            pa.array([row.id, row.text, row.label, row.split, row.date, row.group, *row.extra.values()], pa.string())
            pa.array([row.agreement], pa.int16())
            content_hash(normalise(row.text))
            assert row.agreement is None or not math.isnan(row.agreement)


def fuzz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers: range) -> Counter[tuple[str, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    seed, only = SEED, None
    if again := os.environ.get("FINSIGHT_FUZZ"):
        seed, only = (int(part) for part in again.split(":"))
    work = tmp_path / "a/b/c/d"  # so that a name that climbs up stays below tmp_path and is seen
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    for number in [only] if only is not None else numbers:
        case = make(seed, number)
        folder = work / "case"
        folder.mkdir()
        try:
            found = outcome(case, folder)
        except Exception as error:
            raise AssertionError(f"FINSIGHT_FUZZ={seed}:{number} ({case.reader}: {case.what}, {case.params}): {error!r}") from error
        assert {p.name for p in folder.iterdir()} == set(case.files), f"{seed}:{number}"
        for name in case.files:
            (folder / name).unlink()
        folder.rmdir()
        counts[case.reader.partition("+")[0], found] += 1
    assert not list(work.iterdir())
    assert [p.relative_to(tmp_path).as_posix() for p in sorted(tmp_path.rglob("*"))] == ["a", "a/b", "a/b/c", "a/b/c/d"]
    assert not Path("/tmp/escape.csv").exists()
    return counts


def test_damaged_files_end_in_rows_rejections_or_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = fuzz(tmp_path, monkeypatch, range(600))
    if "FINSIGHT_FUZZ" not in os.environ:
        assert {outcome for _, outcome in counts} >= {"rows", "rows and rejections", "DataError", "ParamsError"}
        assert {reader for reader, _ in counts} == {f.partition("+")[0] for f in VALID}


@pytest.mark.long
def test_ten_thousand_damaged_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    counts = fuzz(tmp_path, monkeypatch, range(10_000))
    with capsys.disabled():
        outcomes = ["rows", "rows and rejections", "DataError", "ParamsError"]
        print(f"\n{'reader':12}" + "".join(f"{o:>21}" for o in outcomes))
        for reader in sorted({reader for reader, _ in counts}):
            print(f"{reader:12}" + "".join(f"{counts[reader, o]:21,}" for o in outcomes))
        print(f"{counts.total():,} cases")
