"""The Financial PhraseBank in its official files (Malo et al. 2014): ``sentence@label``, one file a level of agreement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from finsight.adapters import table_cells as cells
from finsight.adapters.corpus_files import COMPRESSED, SourceFile, list_files
from finsight.adapters.decoding import decode
from finsight.domain.records import Example, Rejection
from finsight.domain.splits import finbert
from finsight.errors import DataError
from finsight.params.corpora import PhraseBankCorpus

FILES = {100: "Sentences_AllAgree.txt", 75: "Sentences_75Agree.txt", 66: "Sentences_66Agree.txt", 50: "Sentences_50Agree.txt"}


@dataclass(frozen=True, slots=True)
class PhraseBankReader:
    """Reads the file of the wanted agreement; the stricter files beside it say how far each sentence's annotators agreed."""

    name: str
    params: PhraseBankCorpus
    _encodings: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    def read(self) -> Iterator[Example | Rejection]:
        """See :class:`finsight.ports.CorpusReader`."""
        file, files = FILES[self.params.agreement], self._files()
        if file not in files:
            raise DataError(
                f"{self.params.path}: holds no {file}; check corpora.{self.name}.path and .agreement in params.yaml, "
                f"or bring the official files in with `finsight corpus add {self.name} FOLDER`"
            )
        lines = self._lines(files[file])
        levels = [level for level in FILES if level > self.params.agreement and FILES[level] in files]
        stricter = {level: Counter(line for _, line in self._lines(files[FILES[level]])) for level in levels}
        splits = finbert(len(lines)) if self.params.split == "finbert" else [None] * len(lines)
        labels = cells.Labels(self.params.label_map)
        for (number, line), split in zip(lines, splits, strict=True):
            text, at, label = line.rpartition("@")
            id_ = f"{self.name}/{file}:{number}"
            if not at:
                yield Rejection(id_, self.name, "no @ between sentence and label", cells.sound(line))
                continue
            agreement: int = self.params.agreement
            for level, left in stricter.items():  # highest first; a repeated sentence stands in a file as often as it agrees
                if left[line]:
                    left[line] -= 1
                    agreement = max(agreement, level)
            try:
                yield Example(id_, cells.text(text).strip(), labels(label), self.name, split, agreement)
            except cells.UnfitError as unfit:
                yield Rejection(id_, self.name, str(unfit), cells.sound(line), unfit.ignored)

    def facts(self) -> Mapping[str, Any]:
        """See :class:`finsight.ports.CorpusReader`."""
        return {"encodings": self._encodings}

    def _files(self) -> dict[str, SourceFile]:
        """The official files by their names, which may be compressed or stand in one zip file."""
        if not Path(self.params.path).exists():
            raise DataError(
                f"{self.params.path}: no such folder; bring the corpus in with `finsight corpus add {self.name} FOLDER`, "
                "commit its .dvc file, or fetch it with `dvc pull`"
            )
        found: dict[str, SourceFile] = {}
        for file in list_files(self.params.path, self.name, [".txt"]):
            pure = PurePosixPath(file.shown)
            name = pure.stem if pure.suffix.lower() in COMPRESSED else pure.name
            if name in FILES.values() and found.setdefault(name, file) is not file:
                raise DataError(f"{self.params.path}: holds {name} twice, as {found[name].shown} and {file.shown}; remove one")
        return found

    def _lines(self, file: SourceFile) -> list[tuple[int, str]]:
        """The lines that are not blank, each with its number."""
        text, self._encodings[file.shown] = decode(file, self.params.encoding, self.name, "latin-1")
        # Only line ends split: str.splitlines would also split at the latin-1 control 0x85.
        lines = text.replace("\r\n", "\n").split("\n")
        return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
