"""Corpora in CSV files: one file, or all ``*.csv`` files of a folder."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from finsight.adapters.text_files import open_text
from finsight.domain.records import Example, Rejection
from finsight.errors import DataError
from finsight.params.corpora import CsvCorpus


@dataclass(frozen=True, slots=True)
class CsvReader:
    """Reads delimited text with a header line, quoted line breaks included."""

    name: str
    params: CsvCorpus

    def read(self) -> Iterator[Example | Rejection]:
        """See :class:`finsight.ports.CorpusReader`."""
        root = Path(self.params.path)
        if not root.exists():
            raise DataError(
                f"{root}: no such file or folder; check corpora.{self.name}.path in params.yaml, "
                f"bring the corpus in with `finsight corpus add {self.name} PATH-OR-URL`, or fetch it with `dvc pull`"
            )
        files = sorted(root.rglob("*.csv")) if root.is_dir() else [root]
        if not files:
            raise DataError(f"{root}: holds no *.csv file; check corpora.{self.name}.path in params.yaml")
        for path in files:
            yield from self._read_file(path, path.relative_to(root).as_posix() if root.is_dir() else path.name)

    def _read_file(self, path: Path, shown: str) -> Iterator[Example | Rejection]:
        p = self.params
        with open_text(path, p.encoding, self.name) as file:
            rows = csv.reader(file, delimiter=p.delimiter, strict=True)
            try:
                header = next(rows, [])
                if len(set(header)) < len(header):
                    raise DataError(f"{path}: the header names a column twice: {header}; rename one")
                for key, column in (("text", p.text), ("label", p.label), ("split", p.split)):
                    if column is not None and column not in header:
                        raise DataError(
                            f"{path}: no column {column!r} in {header}; set corpora.{self.name}.{key} or .delimiter in params.yaml"
                        )
                line = rows.line_num
                for row in rows:
                    id_, line = f"{self.name}/{shown}:{line + 1}", rows.line_num
                    if not row:
                        continue  # a blank line is no row
                    if len(row) != len(header):
                        yield Rejection(id_, self.name, f"{len(row)} columns where the header has {len(header)}", str(row))
                        continue
                    values = dict(zip(header, row, strict=True))
                    yield Example(
                        id_,
                        values[p.text],
                        map_label(values[p.label], p.label_map),
                        self.name,
                        values[p.split].strip() or None if p.split else None,
                    )
            except csv.Error as error:
                raise DataError(
                    f"{path}: line {rows.line_num}: not CSV: {error}; check its quotes and corpora.{self.name}.delimiter"
                ) from None


def map_label(label: str, label_map: dict[str | int, str]) -> str:
    """The label under its name in params.yaml; YAML reads the keys ``0:`` and ``"0":`` differently, so both match."""
    label = label.strip()
    if label in label_map:
        return label_map[label]
    return next((name for key, name in label_map.items() if str(key) == label), label)
