"""Normalising texts by the ten thousand."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from finsight.domain.records import normalise

_PLAIN = r"\A[!-~]+( [!-~]+)*\z"


def normal_texts(texts: pa.ChunkedArray) -> pa.Array:
    """:func:`~finsight.domain.records.normalise` of each text; those that are plain ASCII with single spaces, which most are, stay."""
    plain = pc.match_substring_regex(texts, _PLAIN)
    if pc.all(plain).as_py():
        return pa.chunked_array(texts).combine_chunks()
    return pa.array([text if is_plain else normalise(text) for text, is_plain in zip(texts.to_pylist(), plain.to_pylist(), strict=True)])
