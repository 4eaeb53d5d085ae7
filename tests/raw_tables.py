"""Raw tables as ingest writes them, made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from conftest import starter_rows
from finsight.domain.records import content_hash

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "hash", "text", "label", "corpus", "split")),
        ("agreement", pa.int16()),
        ("date", pa.string()),
        ("group", pa.string()),
    ]
)


def raw_row(number: int, text: str | None, label: str | None, corpus: str = "starter", **more: Any) -> dict[str, Any]:
    """A row of the raw table; what ``more`` does not say is empty."""
    row = {"id": f"{corpus}/rows.csv:{number + 2}", "hash": content_hash(text or ""), "text": text, "label": label, "corpus": corpus}
    return {**dict.fromkeys(SCHEMA.names), **row, **more}


def starter_table(n: int = 240, corpus: str = "starter") -> list[dict[str, Any]]:
    """Sound rows."""
    return [raw_row(i, row["text"], row["label"], corpus) for i, row in enumerate(starter_rows(n))]


def write_raw(path: Path, rows: Sequence[Mapping[str, Any]], row_group_size: int | None = None, schema: pa.Schema = SCHEMA) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema), path, row_group_size=row_group_size)
    return path
