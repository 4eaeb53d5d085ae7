"""Rows from the files of tables, one generator a format. Each streams; a row that is malformed comes with the reason in its place.

``rows(source, kind(source, format), layout)`` is the way in; ``columns(...)`` reads no further than the first row.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from finsight.adapters.compressed import one_line
from finsight.adapters.corpus_files import SourceFile
from finsight.adapters.decoding import encoding_of, open_text
from finsight.errors import DataError, ParamsError
from finsight.params.corpora import Column

SUFFIXES = {
    "csv": (".csv", ".tsv"),
    "json": (".json",),
    "jsonl": (".jsonl", ".ndjson"),
    "parquet": (".parquet",),
    "excel": (".xlsx", ".xlsm"),
}
KINDS = {suffix: kind for kind, suffixes in SUFFIXES.items() for suffix in suffixes}
LONGEST_LINE = 16 << 20
"""Characters of one line of JSON lines; a longer one is a file of another format."""
RAW = 1000
"""Characters of a malformed row that the quarantine keeps."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """A row that can't be taken apart: why, and what stood there."""

    reason: str
    raw: str


Row = dict[Any, Any] | Malformed
"""Values by column: by name, and by number for those that ``Layout.wanted`` numbers or where there is no header."""
Rows = Iterator[tuple[int, Row]]
"""Each row with its place in the file, from 1: the line of delimited text, the row of a sheet, else the how-manieth it is."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What params.yaml says of the files.

    :param wanted: the key in params.yaml of each column that must be there, and the column.
    :param encodings: is filled with the encoding of each file that is text, as it is opened.
    """

    corpus: str
    encoding: str = "auto"
    delimiter: str | None = None
    header: bool = True
    sheet: str | None = None
    wanted: Mapping[str, Column] = field(default_factory=dict)
    encodings: dict[str, str] = field(default_factory=dict)

    def numbers(self) -> list[int]:
        """The columns that are wanted by number."""
        return sorted({c for c in self.wanted.values() if isinstance(c, int)})

    def check(self, place: str, names: list[str], optional: str = "") -> None:
        """Refuse a file in which a wanted column is missing.

        :param optional: a further key that may be at fault.
        """
        if len(set(names)) < len(names):
            raise DataError(f"{place}: the header names a column twice: {shorten(str(names), 300)}; rename one")
        for key, column in self.wanted.items():
            where = f"set corpora.{self.corpus}.{key}{optional} in params.yaml"
            if isinstance(column, int) and column >= len(names):
                raise DataError(f"{place}: no column {column} among {len(names)}, counted from 0; {where}")
            if isinstance(column, str) and column not in names:
                raise DataError(f"{place}: no column {column!r} in {shorten(str(names), 300)}; {where}")


def kind(source: SourceFile, format: str, corpus: str) -> str:
    """The format of one file: ``format`` itself, or by suffix where that is ``table``.

    :raises DataError: when the suffix says nothing.
    """
    if format != "table":
        return format
    if source.suffix in KINDS:
        return KINDS[source.suffix]
    raise DataError(
        f"{source.place}: suffix {source.suffix!r} is none of {', '.join(KINDS)}; rename it or set corpora.{corpus}.format in params.yaml"
    )


def rows(source: SourceFile, kind: str, layout: Layout) -> Rows:
    """The rows of one file in their order.

    :param kind: one of ``SUFFIXES``.
    :raises DataError: when the file is not of that format, or a wanted column is not in it.
    """
    return _formats()[kind](source, layout)


def columns(source: SourceFile, kind: str, layout: Layout) -> list[Any]:
    """The columns of the first row that is sound, for a proposal; none when there is no such row."""
    return next((list(row) for _, row in rows(source, kind, layout) if not isinstance(row, Malformed)), [])


def shorten(raw: str, length: int = RAW) -> str:
    """The beginning of what is too long to be kept."""
    return raw if len(raw) <= length else raw[:length] + "…"


def csv_rows(source: SourceFile, layout: Layout) -> Rows:
    """Delimited text, line breaks in quotes included."""
    encoding = layout.encodings[source.shown] = encoding_of(source, layout.encoding, layout.corpus)
    delimiter = layout.delimiter or ("\t" if source.suffix == ".tsv" else ",")
    with open_text(source, encoding, layout.corpus) as file:
        try:
            lines = csv.reader(file, delimiter=delimiter, strict=True)
        except (TypeError, ValueError):
            raise ParamsError(f"corpora.{layout.corpus}.delimiter: {delimiter!r} can't part columns; use a comma, ; or a tab") from None
        try:
            yield from _csv_rows(source.place, lines, layout)
        except csv.Error as error:
            advice = f"check its quotes and corpora.{layout.corpus}.delimiter"
            raise DataError(f"{source.place}: line {lines.line_num}: not CSV: {one_line(error)}; {advice}") from None


def _csv_rows(place: str, lines: Any, layout: Layout) -> Rows:
    names, numbers, line = list[Any](), list[int](), 0
    for row in lines:
        start, line = line + 1, lines.line_num
        if not row:
            continue  # a blank line is no row
        if not names:
            layout.check(place, row if layout.header else [str(i) for i in range(len(row))], " or .delimiter")
            names = list(row) if layout.header else list(range(len(row)))
            if layout.header:
                numbers = layout.numbers()
                continue
        if len(row) != len(names):
            than = "the header" if layout.header else "the first line"
            yield start, Malformed(f"{len(row)} columns where {than} has {len(names)}", shorten(str(row)))
            continue
        values = dict(zip(names, row, strict=True))
        for number in numbers:
            values[number] = row[number]
        yield start, values
    if not names:
        layout.check(place, [], " or .delimiter")


def jsonl_rows(source: SourceFile, layout: Layout) -> Rows:
    """JSON lines: an object, or an array of cells, a line."""
    encoding = layout.encodings[source.shown] = encoding_of(source, layout.encoding, layout.corpus)
    seen = Seen(source.place, layout)
    with open_text(source, encoding, layout.corpus, newline="\n") as file:
        number = 0
        while line := file.readline(LONGEST_LINE):
            number += 1
            if len(line) == LONGEST_LINE:
                raise DataError(f"{source.place}: line {number} has more than {LONGEST_LINE} characters; if it is JSON, set format: json")
            if line.isspace():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, Malformed(f"not JSON: {_reason(error)}", shorten(line))
                continue
            yield number, seen.row(value)
    seen.end()


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    return "nested too deep" if isinstance(error, RecursionError) else "a number is too long"


class Seen:
    """Rows of JSON, where each names its own columns: that a wanted one stands in none of them is known at the end only."""

    def __init__(self, place: str, layout: Layout) -> None:
        self._place, self._layout, self._unseen, self._names = place, layout, set(layout.wanted.values()), list[Any]()

    def row(self, value: Any) -> Row:
        """The row that a value of JSON is."""
        if isinstance(value, list):
            row: dict[Any, Any] = dict(enumerate(value))
        elif isinstance(value, dict):
            row = value
        else:
            return Malformed(f"a JSON {type(value).__name__} where an object is expected", shorten(repr(value)))
        if self._unseen:
            self._unseen.difference_update(row)
            self._names = self._names or list(row)
        return row

    def end(self) -> None:
        """Refuse a file that had rows and a wanted column in none of them."""
        for key, column in self._layout.wanted.items():
            if self._names and column in self._unseen:
                raise DataError(
                    f"{self._place}: no {column!r} in any object, the first has {shorten(str(self._names), 300)}; "
                    f"set corpora.{self._layout.corpus}.{key} in params.yaml"
                )


def _formats() -> dict[str, Callable[[SourceFile, Layout], Rows]]:
    # Their libraries are imported when such a file comes.
    def json_rows(source: SourceFile, layout: Layout) -> Rows:
        from finsight.adapters import json_tables

        return json_tables.rows(source, layout)

    def parquet_rows(source: SourceFile, layout: Layout) -> Rows:
        from finsight.adapters import parquet_tables

        return parquet_tables.rows(source, layout)

    def excel_rows(source: SourceFile, layout: Layout) -> Rows:
        from finsight.adapters import excel_tables

        return excel_tables.rows(source, layout)

    return {"csv": csv_rows, "jsonl": jsonl_rows, "json": json_rows, "parquet": parquet_rows, "excel": excel_rows}
