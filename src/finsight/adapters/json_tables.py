"""JSON as a table, streamed: a list of objects, a list under a key (``{"data": [...]}``), or objects by id (``{"1": {...}}``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TextIO

import ijson  # type: ignore[import-untyped]

from finsight.adapters.corpus_files import SourceFile
from finsight.adapters.decoding import encoding_of, open_text
from finsight.adapters.table_formats import Layout, Rows, Seen, shorten
from finsight.errors import DataError

DEEPEST = 64
"""Levels of nesting; no table has them, and Python's own functions give up a little later."""
SINGLES = 1000
"""Single values that are kept until it is known whether objects or a list stands beside them."""
EXPECTED = "expected a list of objects, one list under a key, or objects by id"
Event = tuple[str, Any]


def rows(source: SourceFile, layout: Layout) -> Rows:
    """See :func:`finsight.adapters.table_formats.rows`."""
    seen = Seen(source.place, layout)
    for number, (_, value) in enumerate(entries(source, layout), start=1):
        yield number, seen.row(value)
    seen.end()


def entries(source: SourceFile, layout: Layout) -> Iterator[tuple[str | None, Any]]:
    """The elements of the list, each with None, or the objects, each with its key.

    :raises DataError: when the file is not JSON, or is neither of these.
    """
    encoding = layout.encodings[source.shown] = encoding_of(source, layout.encoding, layout.corpus)
    with open_text(source, encoding, layout.corpus) as text:
        content = _Bytes(text)
        try:
            # use_float: without it the C backend of ijson 3.6 crashes on an integer of more than 4,300 digits; with it those beyond 64 bits
            # are refused.
            yield from _entries(source.place, ijson.basic_parse(content, use_float=True))
        except ijson.JSONError as error:
            # ijson draws the place over several lines.
            reason = " ".join(str(error).split("\n")[0].split())[:120]
            raise DataError(f"{source.place}: not JSON: {reason}; if each line is an object, set format: jsonl") from None
        except UnicodeDecodeError:
            if content.failed:
                raise
            raise DataError(f"{source.place}: holds half of a character, such as \\ud83d; write it again, or as JSON lines") from None


def _entries(place: str, events: Iterator[Event]) -> Iterator[tuple[str | None, Any]]:
    first, _ = next(events)
    if first == "start_array":
        yield from _elements(place, events)
    elif first == "start_map":
        yield from _members(place, events)
    else:
        raise DataError(f"{place}: holds no rows; {EXPECTED}")
    for _ in events:  # so that what follows is refused instead of dropped
        pass


def _elements(place: str, events: Iterator[Event]) -> Iterator[tuple[None, Any]]:
    for event, value in events:
        if event == "end_array":
            return
        yield None, _value(place, event, value, events)


def _members(place: str, events: Iterator[Event]) -> Iterator[tuple[str | None, Any]]:
    """Objects by id, or one list; single values beside a list (a version, a date) are no rows, beside objects they are malformed ones."""
    found, singles = "", list[tuple[str, Any]]()
    for event, key in events:
        if event == "end_map":
            break
        event, value = next(events)
        if event in ("start_map", "start_array"):
            if found and (event == "start_array" or found == "start_array"):
                raise DataError(f"{place}: holds a list beside other lists or objects, such as {shorten(key, 60)!r}; {EXPECTED}")
            if event == "start_array":
                yield from _elements(place, events)
            else:
                yield from singles
                singles.clear()
                yield key, _value(place, event, value, events)
            found = event
        elif found == "start_map":
            yield key, value
        elif len(singles) < SINGLES:
            singles.append((key, value))
        else:
            raise DataError(f"{place}: more than {SINGLES} single values before the first row; {EXPECTED}")
    if not found:
        raise DataError(f"{place}: holds no rows; {EXPECTED}")


def _value(place: str, event: str, value: Any, events: Iterator[Event]) -> Any:
    """Build the value that begins with ``event``; of objects the last of two equal keys counts, as in Python's json."""
    if event not in ("start_map", "start_array"):
        return value
    top: Any = {} if event == "start_map" else []
    open_: list[Any] = [top]
    keys: list[str] = [""]
    while open_:
        event, value = next(events)
        if event == "map_key":
            keys[-1] = value
            continue
        if event in ("end_map", "end_array"):
            open_.pop()
            keys.pop()
            continue
        starts = event in ("start_map", "start_array")
        built: Any = value if not starts else {} if event == "start_map" else []
        if isinstance(open_[-1], dict):
            open_[-1][keys[-1]] = built
        else:
            open_[-1].append(built)
        if starts:
            if len(open_) == DEEPEST:
                raise DataError(f"{place}: nested deeper than {DEEPEST} levels; expected a list of flat objects")
            open_.append(built)
            keys.append("")
    return top


class _Bytes:
    """Text in any encoding as the UTF-8 bytes that ijson asks for."""

    def __init__(self, text: TextIO) -> None:
        self._text, self.failed = text, False

    def read(self, size: int = -1) -> bytes:
        try:
            return self._text.read(size).encode()
        except UnicodeError:
            self.failed = True  # ijson raises the same for halves of characters
            raise
