"""What the files of an unknown corpus look like: format, delimiter, encoding, columns. A guess for a person to confirm."""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import Any

from finsight.adapters import table_formats
from finsight.adapters.corpus_files import SourceFile, list_files
from finsight.adapters.decoding import candidate, encoding_of, open_text
from finsight.adapters.phrasebank_corpus import FILES
from finsight.adapters.table_cells import plain
from finsight.adapters.table_formats import KINDS, Layout, Malformed
from finsight.domain.records import SPLITS
from finsight.errors import DataError
from finsight.params.corpora import Column
from finsight.pipeline.columns import SPLIT_WORDS, Roles, guess_header, guess_roles, split_of

DELIMITERS = ",;\t|"
HEAD = 1 << 18  # characters from which a delimiter is told
SAMPLED = 1000  # rows of a file whose values are looked at
SAMPLED_FILES = 8
ENCODED = 64 << 20  # bytes that are tried for their encoding


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen.

    :param params: keys for the corpus's block in params.yaml, without its path.
    :param columns: the columns, where the format has any.
    :param remarks: what a person should know of a key, by key.
    """

    params: dict[str, Any]
    files: list[str]
    columns: list[Column] = field(default_factory=list)
    remarks: dict[str, str] = field(default_factory=dict)


def look(name: str, path: Path) -> Look:
    """Look at what lies at ``path``.

    :raises DataError: when nothing there can be read as a corpus.
    """
    official = _phrasebank(name, path)
    if official:
        return official
    sources = list_files(path.as_posix(), name, KINDS)
    if all(source.suffix == ".json" and _is_fiqa(source) for source in sources):
        remarks = {"thresholds": "label: the highest score that still gets it; scores go from -1 to 1; yours to decide"}
        return Look({"format": "fiqa"}, [s.shown for s in sources], remarks=remarks)
    return _table(name, sources)


def _phrasebank(name: str, path: Path) -> Look | None:
    try:
        texts = list_files(path.as_posix(), name, (".txt",))
    except DataError:
        return None
    names = {text.shown.rpartition("/")[2].removesuffix(".gz").removesuffix(".zst") for text in texts}
    levels = {level for level, file in FILES.items() if file in names}
    if not levels:
        return None
    params = {"format": "phrasebank", "agreement": min(levels), **({"split": "finbert"} if 50 in levels else {})}
    remarks = {"agreement": f"lowest percentage of agreeing annotators; there: {', '.join(map(str, sorted(levels)))}"}
    remarks["split"] = "of finBERT's published code; without it rows are split as under prepare.split"
    return Look(params, [FILES[level] for level in sorted(levels)], remarks=remarks)


def _is_fiqa(source: SourceFile) -> bool:
    """An object by id, each with scored targets under ``info``."""
    with source.open() as file:
        head = file.read(HEAD).decode("utf-8", errors="replace").lstrip("\ufeff")
    return (
        re.match(r'\s*\{\s*"[^"]*"\s*:\s*\{', head) is not None and '"info"' in head and re.search('"sentiment[_ ]score"', head) is not None
    )


def _table(name: str, sources: Sequence[SourceFile]) -> Look:
    kinds = {KINDS[source.suffix] for source in sources}
    params: dict[str, Any] = {"format": kinds.pop() if len(kinds) == 1 else "table"}
    remarks: dict[str, str] = {}
    described = [s for s in sources if KINDS[s.suffix] in ("csv", "json", "jsonl")]
    encoding = next((e for e in (_encoding(s) for s in described[:SAMPLED_FILES]) if e), None)
    if encoding:
        remarks["encoding"] = "a guess from the bytes, which are not UTF-8; look at the accents in the examples"
    layout = Layout(name, encoding=encoding or "auto")
    delimited = next((s for s in sources if KINDS[s.suffix] == "csv"), None)
    if delimited:
        layout = _delimited(delimited, layout)
        if layout.delimiter:
            params["delimiter"] = layout.delimiter
        if not layout.header:
            params["header"] = False
    columns, values = _sample(sources, layout)
    roles = guess_roles(values)
    if roles.split is not None and (other := set(values[roles.split]) - {*SPLITS, ""}):
        remarks["split"] = ", ".join(f"{word} is read as {SPLIT_WORDS[word.lower()]}" for word in sorted(other))
    params |= _keys(roles)
    params |= _split_files(sources) if roles.split is None else {}
    if encoding:
        params["encoding"] = encoding
    _remark(roles, remarks, layout.header)
    return Look(params, [s.shown for s in sources], columns, remarks)


def _encoding(source: SourceFile) -> str | None:
    """None where ``auto`` reads the file, else what its bytes look like."""
    codec = encoding_of(source, "auto", "")
    if codec != "utf-8":
        return None
    with source.open() as file:
        sample = file.read(ENCODED)
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        # A file longer than the sample may end amid a character.
        return None if error.reason == "unexpected end of data" else candidate(sample) or "latin-1"
    return None


def _delimited(source: SourceFile, layout: Layout) -> Layout:
    """The layout with what parts the columns, where it is not what the suffix says, and whether there is a header."""
    usual = "\t" if source.suffix == ".tsv" else ","
    codec = encoding_of(source, layout.encoding, layout.corpus)
    with open_text(source, codec, layout.corpus) as file:
        head = file.read(HEAD)
    parsed = {delimiter: _parse(head, delimiter) for delimiter in DELIMITERS}
    # Of the rows, how many have the most frequent number of columns; a file with one column has none of these delimiters.
    fits: dict[str, float] = {}
    for delimiter, rows in parsed.items():
        widths = Counter(len(row) for row in rows)
        width, times = widths.most_common(1)[0] if widths else (1, 0)
        fits[delimiter] = times / max(1, len(rows)) if width > 1 else 0.0
    best = max(DELIMITERS, key=lambda d: (round(fits[d], 2), d == usual))
    rows = parsed[best]
    header = guess_header(rows[0], rows[1:]) if rows else True
    return Layout(layout.corpus, layout.encoding, None if best == usual else best, header)


def _parse(head: str, delimiter: str) -> list[list[str]]:
    lines = head.splitlines(keepends=True)
    if len(head) >= HEAD:
        lines.pop()
    try:
        return [row for row in itertools.islice(csv.reader(lines, delimiter=delimiter), SAMPLED) if row]
    except csv.Error:
        return []


def _sample(sources: Sequence[SourceFile], layout: Layout) -> tuple[list[Column], dict[Column, list[str]]]:
    """The columns, and some values of each as text."""
    values: dict[Column, list[str]] = {}
    nested: set[Column] = set()
    for source in sources[:SAMPLED_FILES]:
        for row in _first_rows(source, KINDS[source.suffix], layout):
            for column, value in row.items():
                values.setdefault(column, []).append(plain(value).strip())
                if isinstance(value, list | dict):
                    nested.add(column)
    if not values:
        raise DataError(f"{sources[0].place}: no rows of a table; see docs/data.md for the formats")
    return list(values), {column: found for column, found in values.items() if column not in nested}


def _first_rows(source: SourceFile, kind: str, layout: Layout) -> Iterator[dict[Any, Any]]:
    found = (row for _, row in table_formats.rows(source, kind, layout) if not isinstance(row, Malformed))
    return itertools.islice(found, SAMPLED)


def _keys(roles: Roles) -> dict[str, Any]:
    names = ("text", "label", "score", "split", "date", "date_format", "agreement")
    return {name: value for name in names if (value := getattr(roles, name)) is not None}


def _split_files(sources: Sequence[SourceFile]) -> dict[str, Any]:
    """Split → file or pattern, where the names of all files state one and there are at least two."""
    stated: dict[str, list[str]] = {}
    for source in sources:
        split = split_of(source.shown)
        if split is None:
            return {}
        stated.setdefault(split, []).append(source.shown)
    if len(stated) < 2:
        return {}
    patterns = {split: _pattern(stated[split]) for split in sorted(stated, key=["train", "validation", "test"].index)}
    for split, pattern in patterns.items():
        if {source.shown for source in sources if fnmatchcase(source.shown, pattern)} != set(stated[split]):
            return {}  # one that takes in another's files
    return {"split_files": patterns}


def _pattern(files: Sequence[str]) -> str:
    """One name, or what several begin and end with in common."""
    if len(files) == 1:
        return escape(files[0])
    begin = _common(files)
    return f"{escape(begin)}*{escape(_common([f.removeprefix(begin)[::-1] for f in files])[::-1])}"


def _common(names: Sequence[str]) -> str:
    same = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in same)


def _remark(roles: Roles, remarks: dict[str, str], header: bool) -> None:
    if not header:
        remarks["header"] = "the first line is a row already; columns have numbers, from 0"
    if roles.text is None:
        remarks["text"] = "no column looks like text: name one"
    if roles.label is None and roles.score is None:
        remarks["label"] = "no column looks like a label: name one"
    if roles.date_format and roles.date_format.startswith(("%d/%m", "%m/%d", "%d-%m")):
        remarks["date_format"] = "a guess: is the day or the month first?"
