"""Ingest: the named corpora become one table, and every row that can't be used is kept with its reason. Memory is that of a row group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from finsight.domain.records import Example, Rejection, content_hash, examine
from finsight.errors import DataError, ParamsError
from finsight.files import atomic_file, sha256, write_json
from finsight.params.corpora import Corpus, FiqaCorpus, TableCorpus
from finsight.params.ingest import IngestParams
from finsight.pipeline.corrections import Corrections, read_corrections
from finsight.pipeline.mojibake import repair
from finsight.pipeline.raw import COLUMNS
from finsight.pipeline.texts import normal_texts

if TYPE_CHECKING:
    from finsight.ports import CorpusReader

CORPUS_SCHEMA = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()])
"""What every corpus table has; the columns that corpora keep follow."""
QUARANTINE_SCHEMA = pa.schema([("id", pa.string()), ("corpus", pa.string()), ("reason", pa.string()), ("raw", pa.string())])
FIQA_COLUMNS = ("target", "aspect")
# Columns that later stages put beside these; evaluate's probabilities and baselines have a prefix.
_RESERVED = {*CORPUS_SCHEMA.names, "leak", "near_group", "label_id", "input_ids", "predicted"}
_PREFIXES = ("prob_", "baseline_")
ROW_GROUP, CHARACTERS = 32_768, 1 << 26  # the most of a row group
NAMED = 3  # positions that a message names before it says "and N more"
REASONS = 50  # that the report tells apart
FILES = 20  # that the report names


def ingest(
    readers: Mapping[str, CorpusReader],
    labels: Sequence[str],
    params: IngestParams,
    corpora: Mapping[str, Corpus],
    corrections: Path,
    corpus: Path,
    quarantine: Path,
    report: Path,
    unlabelled: Mapping[str, CorpusReader],
    texts: Path,
) -> dict[str, Any]:
    """Read every corpus into ``corpus`` and its rejected rows into ``quarantine``; return what ``report`` says.

    :param readers: corpus name → its reader, in the order in which rows are written; a row group holds rows of one corpus.
    :param corpora: the same names → what params.yaml says of them.
    :param corrections: table of corrected labels, see :func:`finsight.pipeline.corrections.read_corrections`.
    :param unlabelled: readers of corpora of which only the texts are kept, in ``texts``, a table like ``corpus`` with empty labels.
    :raises DataError: when a corpus is empty, or more than ``max_quarantined`` of its rows are rejected.
    """
    extra = extra_columns({name: corpora[name] for name in readers})
    corrected = read_corrections(corrections, labels)
    counts: dict[str, Any] = {}
    with (
        _table(corpus, pa.schema([*CORPUS_SCHEMA, *((name, pa.string()) for name in extra)])) as good,
        _table(quarantine, QUARANTINE_SCHEMA) as bad,
    ):
        for name, reader in readers.items():
            tally = _Tally()
            for chunk in _chunks(reader.read()):
                if corpora[name].repair_mojibake:
                    chunk = [tally.repair(row) for row in chunk]
                examples, hashes, rejected = _judge(chunk, list(labels), corrected)
                tally.count(examples, rejected)
                _append(
                    good,
                    {
                        "hash": hashes,
                        **{key: [getattr(e, key) for e in examples] for key in CORPUS_SCHEMA.names if key != "hash"},
                        **{key: [e.extra.get(key) for e in examples] for key in extra},
                    },
                )
                _append(bad, {key: [getattr(row, key) for row in rejected] for key in QUARANTINE_SCHEMA.names})
            tally.refuse_unfit(name, params.max_quarantined)
            counts[name] = {
                **tally.report(labels),
                "encodings": _encodings(reader.facts().get("encodings", {})),
                "known_as": corpora[name].known_as,
            }
    content = {
        "rows": sum(c["rows"] for c in counts.values()),
        "quarantined": sum(c["quarantined"] for c in counts.values()),
        "ignored": sum(c["ignored"] for c in counts.values()),
        "corrections": corrected.report(),
        "corpora": counts,
        "unlabelled": _write_texts(unlabelled, corpora, texts),
        "corpus_sha256": sha256(corpus),
    }
    write_json(report, content)
    return content


def _write_texts(readers: Mapping[str, CorpusReader], corpora: Mapping[str, Corpus], path: Path) -> dict[str, int]:
    """Write the texts of corpora without their labels; rows without a text are left out. The number of texts by corpus."""
    counts: dict[str, int] = {}
    with _table(path, CORPUS_SCHEMA) as table:
        for name, reader in readers.items():
            counts[name] = 0
            for chunk in _chunks(reader.read()):
                rows = [row for row in chunk if isinstance(row, Example)]
                found = [repair(row.text) if corpora[name].repair_mojibake else row.text for row in rows]
                normal = normal_texts(pa.chunked_array([found], pa.string())).to_pylist()
                kept = [(row.id, content_hash(text), text) for row, text in zip(rows, normal, strict=True) if text]
                ids, hashes, texts = map(list, zip(*kept, strict=True)) if kept else ([], [], [])
                same: dict[str, Any] = {**dict.fromkeys(CORPUS_SCHEMA.names), "label": "", "corpus": name}
                columns = {key: [value] * len(kept) for key, value in same.items()}
                _append(table, {**columns, "id": ids, "hash": hashes, "text": texts})
                counts[name] += len(kept)
            if not counts[name]:
                raise DataError(f"corpora.{name}: no texts; check its path in params.yaml, or take it out of ingest.unlabelled")
    return counts


def extra_columns(corpora: Mapping[str, Corpus]) -> list[str]:
    """The columns that any of the corpora keeps, by name.

    :raises ParamsError: when one has a name that the table needs for itself.
    """
    found: set[str] = set()
    for name, corpus in corpora.items():
        kept: Collection[str] = corpus.keep if isinstance(corpus, TableCorpus) else FIQA_COLUMNS if isinstance(corpus, FiqaCorpus) else ()
        if reserved := sorted(column for column in kept if column in _RESERVED or column.startswith(_PREFIXES)):
            raise ParamsError(
                f"corpora.{name}.keep: {reserved[0]!r} is a column of the table itself; take it out (split, agreement, date and group "
                "have keys of their own) or rename it in the file"
            )
        found |= set(kept)
    return sorted(found)


def _chunks(rows: Iterable[Example | Rejection]) -> Iterator[list[Example | Rejection]]:
    """Rows by the row group, which ends early where texts are long."""
    chunk: list[Example | Rejection] = []
    characters = 0
    for row in rows:
        chunk.append(row)
        characters += len(row.text) if isinstance(row, Example) else len(row.raw)
        if len(chunk) == ROW_GROUP or characters > CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _judge(
    chunk: Sequence[Example | Rejection], labels: list[str], corrections: Corrections
) -> tuple[list[Example], list[str], list[Rejection]]:
    """Usable examples after corrections, their hashes, and the rows that are rejected; all work on one column is done at once."""
    texts = pa.chunked_array([[row.text for row in chunk if isinstance(row, Example)]], pa.string())
    found = iter([content_hash(text) for text in normal_texts(texts).to_pylist()])
    examples: list[Example] = []
    hashes: list[str] = []
    rejected: list[Rejection] = []
    for row in chunk:
        judged = row
        if isinstance(judged, Example):
            hash_ = next(found)
            judged = corrections.apply(judged, hash_)
            if isinstance(judged, Example):
                judged = examine(judged, labels)
        if isinstance(judged, Rejection):
            rejected.append(judged)
        else:
            examples.append(judged)
            hashes.append(hash_)
    return examples, hashes, rejected


@dataclass(slots=True)
class _Tally:
    """Counts of one corpus."""

    labels: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    where: dict[str, list[str]] = field(default_factory=dict)
    ignored: int = 0
    repaired: int = 0

    def repair(self, row: Example | Rejection) -> Example | Rejection:
        """The row with its text decoded as it should have been."""
        if isinstance(row, Rejection) or (text := repair(row.text)) == row.text:
            return row
        self.repaired += 1
        return replace(row, text=text)

    def count(self, examples: Sequence[Example], rejected: Sequence[Rejection]) -> None:
        self.labels.update([e.label for e in examples])
        for row in rejected:
            if row.ignored:
                self.ignored += 1
                continue
            # Of reasons that name values there may be as many as rows.
            reason = row.reason if row.reason in self.reasons or len(self.reasons) < REASONS else "other reasons"
            self.reasons[reason] += 1
            places = self.where.setdefault(reason, [])
            if len(places) < NAMED:
                places.append(row.id)

    def report(self, labels: Sequence[str]) -> dict[str, Any]:
        return {
            "rows": self.labels.total(),
            "quarantined": self.reasons.total(),
            "ignored": self.ignored,
            "labels": {label: n for label in labels if (n := self.labels[label])},
            "reasons": dict(sorted(self.reasons.items())),
            "mojibake_repaired": self.repaired,
        }

    def refuse_unfit(self, corpus: str, allowed: float) -> None:
        unfit = self.reasons.total()
        rows = self.labels.total() + unfit
        if rows == 0:
            ignored = f" but {self.ignored} that are ignored; check its label_map" if self.ignored else "; check its path"
            raise DataError(f"corpora.{corpus}: no rows{ignored} in params.yaml")
        if unfit <= allowed * rows:
            return
        reason, n = self.reasons.most_common(1)[0]
        more = f" and {n - NAMED} more" if n > NAMED else ""
        advice = f"map it under corpora.{corpus}.label_map" if reason.startswith("label") else "correct the rows"
        raise DataError(
            f"corpora.{corpus}: {unfit} of {rows} rows are unfit, {n} of them with {reason} ({', '.join(self.where[reason])}{more}); "
            f"{advice}, or raise ingest.max_quarantined ({allowed:g}) in params.yaml to set them aside"
        )


def _encodings(by_file: Mapping[str, str]) -> dict[str, str] | dict[str, int]:
    """Encodings by file, or of many files the number by encoding."""
    return dict(by_file) if len(by_file) <= FILES else dict(sorted(Counter(by_file.values()).items()))


def _append(writer: Any, columns: Mapping[str, list[Any]]) -> None:
    """Write the columns as one row group, if they hold rows."""
    table = pa.table({name: columns[name] for name in writer.schema.names}, schema=writer.schema)
    if table.num_rows:
        writer.write_table(table, row_group_size=ROW_GROUP)


@contextmanager
def _table(path: Path, schema: pa.Schema) -> Iterator[Any]:
    """A Parquet file that appears when it is whole."""
    with atomic_file(path) as partial, pq.ParquetWriter(partial, schema) as writer:
        yield writer
