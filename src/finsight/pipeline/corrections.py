"""Corrections of labels by people: a table in git, by the hash of the text, that ingest applies over the corpora as they came."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from finsight.domain.records import Example, Rejection
from finsight.errors import DataError


@dataclass(frozen=True, slots=True)
class Corrections:
    """What to do with the rows of some texts.

    :param labels: hash of the text → the right label, or "" for a row to be left out.
    """

    path: Path
    labels: dict[str, str]
    counts: Counter[str] = field(default_factory=Counter)
    met: set[str] = field(default_factory=set)

    def apply(self, example: Example, hash_: str) -> Example | Rejection:
        """The example with its right label, or its rejection."""
        label = self.labels.get(hash_)
        if label is None:
            return example
        self.met.add(hash_)
        if label == "":
            self.counts["left_out"] += 1
            return Rejection(
                example.id, example.corpus, f"left out by {self.path.as_posix()}", f"{example.text!r}, {example.label!r}", True
            )
        if label == example.label:
            self.counts["confirmed"] += 1
            return example
        self.counts["changed"] += 1
        return replace(example, label=label)

    def report(self) -> dict[str, int]:
        """Rows changed, left out and confirmed; corrections whose text stands in no corpus."""
        return {**{key: self.counts[key] for key in ("changed", "left_out", "confirmed")}, "unmatched": len(self.labels) - len(self.met)}


def read_corrections(path: Path, labels: Sequence[str]) -> Corrections:
    """Read the columns hash and label of a table of corrections; no file, no corrections.

    :raises DataError: when it is no such table, a label is unknown, or a text has two.
    """
    found: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = [name.strip() for name in next(rows, [])]
            if missing := [name for name in ("hash", "label") if name not in header]:
                raise DataError(f"{path}: line 1: no column {missing[0]!r} in {header}; the header is hash,label,id,text")
            at_hash, at_label = header.index("hash"), header.index("label")
            for row in rows:
                if not row:
                    continue
                where = f"{path}: line {rows.line_num}"
                if len(row) != len(header):
                    raise DataError(f"{where}: {len(row)} columns where the header has {len(header)}; put a text with commas in quotes")
                hash_, label = row[at_hash].strip(), row[at_label].strip()
                if not re.fullmatch(r"[0-9a-f]{32}", hash_):
                    raise DataError(f"{where}: {hash_!r:.60} is no hash of a text; copy it from the column hash of data/raw/corpus.parquet")
                if label and label not in labels:
                    raise DataError(
                        f"{where}: label {label!r:.60} is not in {list(labels)}; correct it, or leave it empty to leave the row out"
                    )
                if found.setdefault(hash_, label) != label:
                    raise DataError(f"{where}: the text {hash_} has two labels, {found[hash_]!r} and {label!r}; remove one of the lines")
    except FileNotFoundError:
        pass
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte 0x{error.object[error.start]:02x} is not UTF-8; save it as UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path}: line {rows.line_num}: not CSV: {error}; check its quotes") from None
    return Corrections(path, found)
