"""Cells of a table as what an example holds: a text, a label, a split, a percentage, a date, or the reason why not."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from finsight.adapters.table_formats import shorten
from finsight.errors import ParamsError

MOST = 1000
"""Labels whose meaning is kept at hand; a column with more holds no labels."""


class UnfitError(Exception):
    """A cell that makes its row no example; the message is the reason.

    :param ignored: whether params.yaml asks for it.
    """

    def __init__(self, reason: str, ignored: bool = False) -> None:
        super().__init__(reason)
        self.ignored = ignored


def plain(value: Any) -> str:
    """A cell as text: "" for a missing one, ``1`` for 1.0, ``true`` for True, ISO 8601 for dates."""
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float | Decimal) and math.isfinite(value) and -1e16 < value < 1e16 and value == int(value):
        return str(int(value))
    return value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)


def text(value: Any) -> str:
    """The text; a missing one is empty, and a number or a date is a sign of the wrong column."""
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise UnfitError("a lone surrogate in the text") from None
        return value
    if value is None or value != value:
        return ""
    raise UnfitError(f"text is of type {type(value).__name__}")


class Labels:
    """From the labels of a file to those of ``labels``.

    YAML reads the keys ``0:`` and ``"0":`` differently, and tools write 0 as ``0``, ``0.0`` or ``"0"``: all match.
    """

    def __init__(self, label_map: Mapping[str | int, str | None]) -> None:
        self._map = {str(key): to for key, to in label_map.items()}
        self._known: dict[str, str] = {}

    def __call__(self, value: Any) -> str:
        """The label under its name in params.yaml.

        :raises UnfitError: when it is mapped to nothing, and so left out.
        """
        label = value if type(value) is str else plain(value)
        found = self._known.get(label)
        if found is None:
            found = self._look_up(label.strip())
            if found is None:
                raise UnfitError(f"label {label.strip()!r:.60} is ignored", ignored=True)
            if len(self._known) < MOST:
                self._known[label] = found
        return found

    def _look_up(self, label: str) -> str | None:
        if label not in self._map and (whole := re.fullmatch(r"([+-]?\d+)\.0*", label)):
            return self._map.get(whole[1], label)
        return self._map.get(label, label)


def raw(values: Any) -> str:
    """A row for the quarantine."""
    try:
        return sound(shorten(repr(values)))
    except (RecursionError, ValueError):
        return "nested too deep, or with a number that is too long to be shown"


def sound(text: str) -> str:
    """The text with what UTF-8 can't hold (lone surrogates, from JSON's escapes) made visible."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def number(value: Any, what: str) -> float:
    """A finite number, or a text that is one."""
    try:
        found = math.nan if isinstance(value, bool) or value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise UnfitError(f"{what} {value!r:.60} is no number" if value not in (None, "") else f"no {what}")
    return found


def label_of(score: Any, thresholds: Mapping[str, float]) -> str:
    """The first label whose limit the score does not exceed."""
    found = number(score, "score")
    for label, limit in thresholds.items():
        if found <= limit:
            return label
    raise UnfitError(f"score {found:g} is above the last of thresholds")


def percentage(value: Any) -> int | None:
    """A share of annotators in whole percent, rounded down; None for a missing one."""
    if value is None or value != value or value == "":
        return None
    found = number(value.strip().removesuffix("%") if isinstance(value, str) else value, "agreement")
    if not 0 <= found <= 100:
        raise UnfitError(f"agreement {found:g} is not between 0 and 100")
    if 0 < found <= 1:
        raise UnfitError(f"agreement {found:g} is a share, expected percent (0 to 100)")
    return int(found)


def check_date_format(corpus: str, format: str | None) -> None:
    """Refuse a format that no date can have.

    :raises ParamsError: when it has a directive that is none.
    """
    try:
        dt.datetime.strptime("", format or "")
    except ValueError as error:
        if "bad directive" in str(error) or "stray %" in str(error):
            raise ParamsError(f"corpora.{corpus}.date_format: {error}; see Python's strptime") from None
    except re.error as error:
        raise ParamsError(f"corpora.{corpus}.date_format: {error}; see Python's strptime") from None


def date(value: Any, format: str | None) -> str | None:
    """A date as ISO 8601 in UTC to the second; None for a missing one. What states no zone is in UTC."""
    if value is None or value != value or value == "":
        return None
    try:
        if isinstance(value, str):
            stripped = value.strip()
            found = dt.datetime.strptime(stripped, format) if format else dt.datetime.fromisoformat(stripped)
        elif isinstance(value, dt.datetime):
            found = value
        elif isinstance(value, dt.date):
            found = dt.datetime.combine(value, dt.time())
        else:
            raise UnfitError(f"date is of type {type(value).__name__}")
        utc = found.astimezone(dt.UTC) if found.tzinfo else found.replace(tzinfo=dt.UTC)
        return utc.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
    except (ValueError, OverflowError):
        raise UnfitError(f"date {value!r:.60} is not {format or 'ISO 8601'}") from None
