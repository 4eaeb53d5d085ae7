"""Guessing, from names and values, which column of a table is what. A person confirms it: nothing here is used unseen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from finsight.params.corpora import Column

# By rank: a table that has a `sentence` and a `title` is read for its sentences.
NAMES = {
    "text": "text sentence headline tweet title content body message news article comment post review summary description snippet",
    "label": "label sentiment class labels target polarity category mood stance tone rating gold annotation y",
    "score": "score sentiment_score polarity_score compound valence",
    "split": "split subset partition fold set",
    "date": "date datetime timestamp time published published_at publication_date created created_at pubdate",
    "agreement": "agreement agree annotator_agreement agreement_percent",
}
DATE_FORMATS = (
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d.%m.%Y",
    "%Y/%m/%d",
    "%d-%m-%Y",
    "%Y%m%d",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M",
    "%d %b %Y",
    "%b %d, %Y",
)
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development", "eval"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
MOST_LABELS = 20


@dataclass(frozen=True, slots=True)
class Roles:
    """Which column is what; None where none fits."""

    text: Column | None = None
    label: Column | None = None
    score: Column | None = None
    split: Column | None = None
    date: Column | None = None
    date_format: str | None = None
    agreement: Column | None = None


def guess_roles(columns: Mapping[Column, Sequence[str]]) -> Roles:
    """The roles of columns, given some values of each as text.

    :param columns: by name, or by number where there is no header.
    """
    text = _text(columns)
    rest = {name: values for name, values in columns.items() if name != text}
    score = _first("score", rest, _is_numbers)
    split = _first("split", rest, lambda values: {v.lower() for v in values if v} <= set(SPLIT_WORDS))
    agreement = _first("agreement", rest, lambda values: _is_numbers(values) and all(1 < float(v) <= 100 for v in values if v))
    date = _first("date", rest, lambda values: _date_format(values) is not None)
    taken = {split, agreement, date, *([score] if len(set(rest.get(score, ()))) > MOST_LABELS else [])} - {None}  # type: ignore[arg-type]
    label = _label({name: values for name, values in rest.items() if name not in taken})
    form = (_date_format(rest[date]) or None) if date is not None else None
    return Roles(text, label, score if label is None else None, split, date, form, agreement)


def guess_header(first: Sequence[str], following: Sequence[Sequence[str]]) -> bool:
    """Whether the first row of delimited text names the columns."""
    cells = [cell.strip() for cell in first]
    known = set(" ".join(NAMES.values()).split())
    if any(_plain(cell) in known for cell in cells) and all(len(cell) <= 60 for cell in cells):
        return True
    if len(set(cells)) < len(cells) or any(not cell or len(cell) > 60 or _is_number(cell) for cell in cells):
        return False
    # A cell that comes again below it is a value.
    return not any(cell in {row[i].strip() for row in following if i < len(row)} for i, cell in enumerate(cells))


def split_of(file: str) -> str | None:
    """The split that a file's name states: ``sent_train.csv``, ``data/test-00000-of-00001.parquet``."""
    words = re.split(r"[^a-z]+", file.rpartition("/")[2].lower())
    found = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    return found.pop() if len(found) == 1 else None


def _plain(name: object) -> str:
    return re.sub(r"[^a-z0-9]+", "_", str(name).lower()).strip("_")


def _ranked(role: str, columns: Mapping[Column, Sequence[str]]) -> list[Column]:
    """Columns whose name fits, best first: the very name, then one that begins or ends with it."""
    found: list[tuple[int, int, Column]] = []
    for name in columns:
        if isinstance(name, int):
            continue
        plain = _plain(name)
        for rank, word in enumerate(NAMES[role].split()):
            if plain == word or (len(word) > 3 and (plain.startswith(f"{word}_") or plain.endswith(f"_{word}"))):
                found.append((int(plain != word), rank, name))
                break
    return [name for *_, name in sorted(found, key=lambda item: item[:2])]


def _first(role: str, columns: Mapping[Column, Sequence[str]], fits: Any) -> Column | None:
    return next((name for name in _ranked(role, columns) if any(columns[name]) and fits(columns[name])), None)


def _text(columns: Mapping[Column, Sequence[str]]) -> Column | None:
    means = {name: sum(map(len, values)) / max(1, len(values)) for name, values in columns.items() if not _is_numbers(values)}
    named = [name for name in _ranked("text", columns) if means.get(name, 0) >= 10]
    return named[0] if named else max(means, key=lambda name: means[name], default=None)


def _label(columns: Mapping[Column, Sequence[str]]) -> Column | None:
    """By name, if its values repeat; else the column of fewest distinct values, the last of equals."""

    def few(values: Sequence[str]) -> bool:
        distinct = len(set(values) - {""})
        return 1 <= distinct <= MOST_LABELS and (distinct <= 10 or distinct * 3 <= len(values))

    if (named := _first("label", columns, few)) is not None:
        return named
    fit = [name for name, values in columns.items() if few(values) and len(set(values)) > 1 and max(map(len, values)) <= 30]
    return min(reversed(fit), key=lambda name: len(set(columns[name])), default=None)


def _is_number(value: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value.strip()) is not None


def _is_numbers(values: Sequence[str]) -> bool:
    return any(values) and all(_is_number(v) for v in values if v)


def _date_format(values: Sequence[str]) -> str | None:
    """Empty for ISO 8601, a format of ``DATE_FORMATS`` that all values have, or None."""
    given = [v.strip() for v in values if v.strip()]
    for form in ("", *DATE_FORMATS):
        try:
            for value in given:
                datetime.strptime(value, form) if form else datetime.fromisoformat(value)
        except ValueError:
            continue
        return form if given else None
    return None
