"""Token ids of a row group. What workers import: nothing of torch or transformers, which take seconds to load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from finsight.modeling.tokens import TextTokenizer
from finsight.pipeline.row_groups import RowGroup
from finsight.pipeline.texts import normal_texts
from finsight.pipeline.token_cache import cache_key, cached_tokens
from finsight.pipeline.words import encode

TOKEN_IDS = pa.schema([pa.field("input_ids", pa.list_(pa.int32()))])


def tokenising(definition: str, max_length: int, labels: Sequence[str], cache: Path) -> Callable[[RowGroup], tuple[pa.Table, int]]:
    """A function that returns a row group with normalised texts, label numbers and token ids, and how many texts were cut.

    :param definition: the content of ``tokenizer.json``.
    :param cache: folder of token ids by content.
    """
    tokenizer = TextTokenizer(definition, max_length)

    def tokenise(group: RowGroup) -> tuple[pa.Table, int]:
        table = group.read()
        texts = normal_texts(table["text"])
        key = cache_key(tokenizer.digest, tokenizer.max_length, table["hash"].to_pylist())
        ids, offsets, cut = cached_tokens(cache, key, lambda: encode(texts, tokenizer))
        numbers = pa.compute.index_in(table["label"], pa.array(labels, pa.string())).cast(pa.int16())
        table = with_column(with_column(table, "text", texts), "label_id", numbers)
        tokens = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(ids, pa.int32()))
        return with_column(table, TOKEN_IDS.names[0], tokens), cut

    return tokenise


def with_column(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    """The table with a column set or appended."""
    at = table.schema.get_field_index(name)
    return table.append_column(name, column) if at < 0 else table.set_column(at, name, column)
