"""Ingest: the named corpora become one table, and every row that can't be used is kept with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from finsight.domain.records import Example, Rejection, content_hash, examine
from finsight.errors import DataError
from finsight.files import atomic_file, write_json
from finsight.params.ingest import IngestParams

if TYPE_CHECKING:
    from finsight.ports import CorpusReader

CORPUS_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("hash", pa.string()),
        ("text", pa.string()),
        ("label", pa.string()),
        ("corpus", pa.string()),
        ("split", pa.string()),
        ("agreement", pa.int16()),
    ]
)
QUARANTINE_SCHEMA = pa.schema([("id", pa.string()), ("corpus", pa.string()), ("reason", pa.string()), ("raw", pa.string())])
NAMED = 3  # positions that a message names before it says "and N more"


def ingest(
    readers: Mapping[str, CorpusReader], labels: Sequence[str], params: IngestParams, corpus: Path, quarantine: Path, report: Path
) -> dict[str, Any]:
    """Read every corpus into ``corpus`` and its rejected rows into ``quarantine``; return what ``report`` says.

    :param readers: corpus name → its reader, in the order in which rows are written.
    :raises DataError: when a corpus is empty, or more than ``max_quarantined`` of its rows are rejected.
    """
    examples: list[Example] = []
    rejections: list[Rejection] = []
    counts: dict[str, Any] = {}
    for name, reader in readers.items():
        rows = [examine(row, list(labels)) if isinstance(row, Example) else row for row in reader.read()]
        good = [row for row in rows if isinstance(row, Example)]
        bad = [row for row in rows if isinstance(row, Rejection)]
        _refuse_unfit(name, len(rows), bad, params.max_quarantined)
        examples += good
        rejections += bad
        counts[name] = {
            "rows": len(good),
            "quarantined": len(bad),
            "labels": {label: n for label in labels if (n := sum(e.label == label for e in good))},
            "reasons": dict(sorted(Counter(r.reason for r in bad).items())),
        }
    columns = {field.name: [getattr(e, field.name) for e in examples] for field in CORPUS_SCHEMA if field.name != "hash"}
    columns["hash"] = [content_hash(e.text) for e in examples]
    with atomic_file(corpus) as partial:
        pq.write_table(pa.table(columns, schema=CORPUS_SCHEMA), partial)
    kept = {field.name: [getattr(r, field.name) for r in rejections] for field in QUARANTINE_SCHEMA}
    with atomic_file(quarantine) as partial:
        pq.write_table(pa.table(kept, schema=QUARANTINE_SCHEMA), partial)
    content = {"rows": len(examples), "quarantined": len(rejections), "corpora": counts}
    write_json(report, content)
    return content


def _refuse_unfit(corpus: str, rows: int, bad: Sequence[Rejection], allowed: float) -> None:
    if rows == 0:
        raise DataError(f"corpora.{corpus}: no rows; check its path in params.yaml")
    if len(bad) <= allowed * rows:
        return
    reason, n = Counter(r.reason for r in bad).most_common(1)[0]
    where = [r.id for r in bad if r.reason == reason]
    more = f" and {n - NAMED} more" if n > NAMED else ""
    advice = f"map it under corpora.{corpus}.label_map" if reason.startswith("label") else "correct the rows"
    raise DataError(
        f"corpora.{corpus}: {len(bad)} of {rows} rows are unfit, {n} of them with {reason} ({', '.join(where[:NAMED])}{more}); "
        f"{advice}, or raise ingest.max_quarantined ({allowed:g}) in params.yaml to set them aside"
    )
