"""Small corpora in every format, for the tests of the readers."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from finsight.adapters.fiqa_corpus import FiqaReader
from finsight.adapters.phrasebank_corpus import FILES, PhraseBankReader
from finsight.adapters.table_corpus import TableReader
from finsight.params.corpora import FiqaCorpus, PhraseBankCorpus, TableCorpus
from finsight.ports import CorpusReader

Pairs = Sequence[tuple[str, str]]
LIMITS = {"negative": -0.1, "neutral": 0.1, "positive": 1.0}
SCORES = {"negative": "-0.5", "neutral": "0", "positive": "0.612"}


def as_csv(pairs: Pairs, delimiter: str = ",") -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerows([("text", "label"), *pairs])
    return file.getvalue().encode()


def as_json(pairs: Pairs) -> bytes:
    return json.dumps([{"text": t, "label": label} for t, label in pairs], ensure_ascii=False).encode()


def as_jsonl(pairs: Pairs) -> bytes:
    return "".join(json.dumps({"text": t, "label": label}, ensure_ascii=False) + "\n" for t, label in pairs).encode()


def as_parquet(pairs: Pairs) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"other": [1] * len(pairs), "text": [t for t, _ in pairs], "label": [label for _, label in pairs]}), file)
    return file.getvalue()


def as_xlsx(rows: Sequence[Sequence[Any]], sheet_xml: str | None = None) -> bytes:
    """A workbook of one sheet, Rows, with its cells in place."""

    def cell(column: int, row: int, value: Any) -> str:
        where = f"{chr(65 + column)}{row}"
        if isinstance(value, str):
            return f'<c r="{where}" t="inlineStr"><is><t xml:space="preserve">{escape(value)}</t></is></c>'
        return f'<c r="{where}"><v>{value}</v></c>'

    lines = [f'<row r="{i}">' + "".join(cell(j, i, v) for j, v in enumerate(row)) + "</row>" for i, row in enumerate(rows, start=1)]
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    package = "http://schemas.openxmlformats.org/package/2006"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    kinds = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types"><Default Extension="xml" ContentType="application/xml"/>'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{kinds}.sheet.main+xml"/>'
        f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{kinds}.worksheet+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships">'
        f'<Relationship Id="r1" Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
        '<sheet name="Rows" sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships">'
        f'<Relationship Id="r1" Type="{office}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": sheet_xml or f'<worksheet xmlns="{main}"><sheetData>{"".join(lines)}</sheetData></worksheet>',
    }
    return as_zip({name: ('<?xml version="1.0" encoding="UTF-8"?>' + xml).encode() for name, xml in parts.items()})


def as_zip(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)  # with a fixed date, so that equal members make equal archives
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return file.getvalue()


def as_fiqa(pairs: Pairs) -> bytes:
    entry = {
        str(100 + i): {
            "sentence": t,
            "info": [{"snippets": "['a', \"b", "target": "X plc", "sentiment_score": SCORES[label], "aspects": "['Corporate/Risks']"}],
        }
        for i, (t, label) in enumerate(pairs)
    }
    return json.dumps(entry, ensure_ascii=False).encode()


def as_phrasebank(pairs: Pairs) -> bytes:
    return "".join(f"{' '.join(t.split())}@{label}\r\n" for t, label in pairs).encode("latin-1", "replace")


def files(pairs: Pairs) -> dict[str, tuple[str, bytes]]:
    """Format → a file's name and content; what follows a + is how it is packed."""
    plain = {
        "csv": ("rows.csv", as_csv(pairs)),
        "tsv": ("rows.tsv", as_csv(pairs, "\t")),
        "json": ("rows.json", as_json(pairs)),
        "jsonl": ("rows.jsonl", as_jsonl(pairs)),
        "parquet": ("rows.parquet", as_parquet(pairs)),
        "excel": ("rows.xlsx", as_xlsx([("text", "label"), *pairs])),
        "fiqa": ("train.json", as_fiqa(pairs)),
        "phrasebank": (FILES[50], as_phrasebank(pairs)),
    }
    found = dict(plain)
    for format, (name, content) in plain.items():
        found[f"{format}+gz"] = (f"{name}.gz", gzip.compress(content, mtime=0))
        found[f"{format}+zst"] = (f"{name}.zst", zstandard.ZstdCompressor(write_checksum=True).compress(content))
        found[f"{format}+zip"] = ("all.zip", as_zip({f"in/{name}": content}))
    return found


def reader_of(format: str, path: Path, **params: Any) -> CorpusReader:
    """The reader for a file that :func:`files` made."""
    given = {"path": str(path), "license": "x", **params}
    match format.partition("+")[0]:
        case "fiqa":
            return FiqaReader("mine", FiqaCorpus(format="fiqa", **{"thresholds": LIMITS, **given}))
        case "phrasebank":
            return PhraseBankReader("mine", PhraseBankCorpus(format="phrasebank", **given))
    return TableReader("mine", TableCorpus(**{"format": "table", **given}))
