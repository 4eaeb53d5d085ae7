"""Parts of the test rows that a mean can hide."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finsight.errors import ParamsError
from finsight.params.evaluate import SliceParams

Mask = NDArray[np.bool_]
MOST_VALUES = 50  # of a column

_NUMBER = re.compile(r"\d")
_NEGATION = re.compile(r"\b(?:not?|never|none|nor|neither|without|fail(?:s|ed)? to|cannot|\w+n['’]t)\b", re.IGNORECASE)
# A cashtag, an exchange's code, a company's legal form, or two capital words in a row, as most names of companies are (and some of
# people and places, and any two of a headline in capitals). Of 80 rows of the starter corpus, read by hand, 49 name a company: it found
# 37 of them, and 2 others, before the last words of _NO_NAME stood there.
_COMPANY = re.compile(
    r"\$[A-Z]{1,5}\b|\b[A-Z]{2,6}:\s?[A-Z0-9]{1,6}\b|\b(?:Inc|Corp|Ltd|LLC|PLC|plc|AG|SE|SA|NV|AB|Oyj|Oy|ASA|A/S|SpA|GmbH|Co|Group|Holdings)\b"
    r"|\b[A-ZÀ-Þ](?=[\w’'&.-]*[a-zà-þ])[\w’'&.-]+ (?:(?:&|and|of|de|van|von) )?[A-ZÀ-Þ][\w’'-]*[a-zà-þ]"
)
# What is capital for another reason; a word in small letters takes its place, so that its neighbours become no pair.
_NO_NAME = re.compile(
    r"\b(?:(?:Jan|Febr)uary|March|April|May|June|July|August|(?:Sept|Nov|Dec)ember|October|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|The|In|At|On|An?|But|How)\b"
)
# Words of a text: headlines, sentences, and what is longer than most.
_LENGTHS = {"up to 10 words": (0, 10), "11 to 25 words": (11, 25), "over 25 words": (26, 10**9)}


def slices(table: pa.Table, own: Mapping[str, SliceParams]) -> dict[str, Mask]:
    """The rows (n,) of each slice that has some; a division that leaves all rows together is left out.

    :param table: with text, corpus and agreement, and the columns that ``own`` names.
    :param own: name → a pattern that texts match, or a column whose values divide them.
    :raises ParamsError: when a column has more values than anyone looks at.
    """
    texts = table["text"].to_pylist()
    words = np.array([len(text.split()) for text in texts])
    found: dict[str, Mask] = {}

    def divide(name: str, mask: Mask) -> None:
        if mask.any() and not mask.all():
            found[name] = mask

    def by_value(name: str, values: list[object]) -> None:
        for value in sorted({str(value) for value in values if value is not None}):
            divide(f"{name} {value}", np.array([v is not None and value == str(v) for v in values]))

    def by_match(name: str, matches: Callable[[str], object]) -> None:
        mask = np.array([bool(matches(text)) for text in texts])
        divide(f"with {name}", mask)
        divide(f"without {name}", ~mask)

    by_value("corpus", table["corpus"].to_pylist())
    agreements = table["agreement"].to_pylist()
    divide("full agreement", np.array([agreement == 100 for agreement in agreements]))
    divide("partial agreement", np.array([agreement is not None and agreement < 100 for agreement in agreements]))
    for name, (low, high) in _LENGTHS.items():
        divide(name, (words >= low) & (words <= high))
    by_match("number", _NUMBER.search)
    by_match("negation", _NEGATION.search)
    by_match("company or ticker", lambda text: _COMPANY.search(_NO_NAME.sub("on", text)))
    for name, slice_ in own.items():
        if slice_.column is None:
            by_match(name, re.compile(slice_.pattern or "").search)
        elif slice_.column in table.column_names:
            values = table[slice_.column].to_pylist()
            if (several := len({*values})) > MOST_VALUES:
                raise ParamsError(
                    f"evaluate.slices.{name}.column: {slice_.column} has {several} values in {len(values)} rows, at most {MOST_VALUES} "
                    "make slices; name a column that divides the rows into fewer parts"
                )
            by_value(name, values)
    return found
