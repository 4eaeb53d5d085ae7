"""Corpora whose files are tables: delimited text, JSON, JSON lines, Parquet, Excel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from finsight.adapters import table_cells as cells
from finsight.adapters.corpus_files import SourceFile, list_files
from finsight.adapters.table_formats import KINDS, SUFFIXES, Layout, Malformed, kind, rows
from finsight.domain.records import Example, Rejection
from finsight.errors import DataError
from finsight.params.corpora import Column, TableCorpus
from finsight.pipeline.columns import SPLIT_WORDS


@dataclass(frozen=True, slots=True)
class TableReader:
    """Reads every file of a corpus, row by row."""

    name: str
    params: TableCorpus
    _encodings: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    def read(self) -> Iterator[Example | Rejection]:
        """See :class:`finsight.ports.CorpusReader`."""
        p = self.params
        cells.check_date_format(self.name, p.date_format)
        files = list_files(p.path, self.name, KINDS if p.format == "table" else SUFFIXES[p.format])
        splits = self._splits(files)
        layout = Layout(self.name, p.encoding, p.delimiter, p.header, p.sheet, self._wanted(), self._encodings)
        convert = self._converter()
        for file in files:
            split, prefix = splits.get(file.shown), f"{self.name}/{file.shown}:"
            for position, row in rows(file, kind(file, p.format, self.name), layout):
                id_ = f"{prefix}{position}"
                if isinstance(row, Malformed):
                    yield Rejection(id_, self.name, row.reason, cells.sound(row.raw))
                    continue
                try:
                    yield convert(id_, row, split)
                except cells.UnfitError as unfit:
                    yield Rejection(id_, self.name, cells.sound(str(unfit)), cells.raw(list(row.values())), unfit.ignored)

    def facts(self) -> Mapping[str, Any]:
        """See :class:`finsight.ports.CorpusReader`."""
        return {"encodings": self._encodings}

    def _wanted(self) -> dict[str, Column]:
        """Each column that is read, by its key in params.yaml."""
        p = self.params
        keys = ("text", "label" if p.score is None else "score", "split", "agreement", "date", "group")
        columns = {key: column for key in keys if (column := getattr(p, key)) is not None}
        return {**columns, **{f"keep[{i}]": name for i, name in enumerate(p.keep)}}

    def _splits(self, files: list[SourceFile]) -> dict[str, str]:
        """The split of each file, where ``split_files`` gives them."""
        found: dict[str, str] = {}
        for split, pattern in self.params.split_files.items():
            matched = [f.shown for f in files if fnmatchcase(f.shown, pattern)]
            if not matched:
                key = f"corpora.{self.name}.split_files.{split}"
                raise DataError(f"{self.params.path}: {pattern!r} is none of its files ({_some(files)}); correct {key} in params.yaml")
            for shown in matched:
                if found.setdefault(shown, split) != split:
                    raise DataError(
                        f"{self.params.path}: {shown} is of two splits; make the patterns of corpora.{self.name}.split_files differ"
                    )
        if found and (rest := [f for f in files if f.shown not in found]):
            raise DataError(
                f"{self.params.path}: {_some(rest)} match no pattern; name them under corpora.{self.name}.split_files or narrow .path"
            )
        return found

    def _converter(self) -> Callable[[str, dict[Any, Any], str | None], Example]:
        """What makes an example of the values of a row, or raises UnfitError; built once, for it runs a million times."""
        p, name, labels = self.params, self.name, cells.Labels(self.params.label_map)
        at_text, at_label, at_split, scored = p.text, p.label, p.split, p.score is not None
        further = not (p.agreement is None and p.date is None and p.group is None and not p.keep)

        def convert(id_: str, row: dict[Any, Any], split: str | None) -> Example:
            text = cells.text(row.get(at_text))
            label = cells.label_of(row.get(p.score), p.thresholds) if scored else "" if at_label is None else labels(row.get(at_label))
            if at_split is not None:
                stated = cells.plain(row.get(at_split)).strip()
                split = SPLIT_WORDS.get(stated.lower(), stated) or None
            if not further:
                return Example(id_, text, label, name, split)
            agreement = None if p.agreement is None else cells.percentage(row.get(p.agreement))
            date = None if p.date is None else cells.date(row.get(p.date), p.date_format)
            group = None if p.group is None else cells.sound(cells.plain(row.get(p.group))) or None
            extra = {column: cells.sound(cells.plain(row.get(column))) for column in p.keep}
            return Example(id_, text, label, name, split, agreement, date, group, extra)

        return convert


def _some(files: list[SourceFile]) -> str:
    names = [f.shown for f in files[:3]]
    return ", ".join(names) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
