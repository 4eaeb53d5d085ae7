"""The Financial PhraseBank in its official files (Malo et al. 2014): ``sentence@label``, one file a level of agreement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from finsight.adapters.csv_corpus import map_label
from finsight.adapters.text_files import open_text
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

    def read(self) -> Iterator[Example | Rejection]:
        """See :class:`finsight.ports.CorpusReader`."""
        file = FILES[self.params.agreement]
        lines = self._lines(file)
        stricter = {
            level: Counter(line for _, line in self._lines(FILES[level]))
            for level in FILES
            if level > self.params.agreement and self._path(FILES[level]).exists()
        }
        splits = finbert(len(lines)) if self.params.split == "finbert" else [None] * len(lines)
        for (number, line), split in zip(lines, splits, strict=True):
            text, at, label = line.rpartition("@")
            id_ = f"{self.name}/{file}:{number}"
            if not at:
                yield Rejection(id_, self.name, "no @ between sentence and label", line)
                continue
            agreement: int = self.params.agreement
            for level, left in stricter.items():  # highest first; a repeated sentence stands in a file as often as it agrees
                if left[line]:
                    left[line] -= 1
                    agreement = max(agreement, level)
            yield Example(id_, text.strip(), map_label(label, self.params.label_map), self.name, split, agreement)

    def _path(self, file: str) -> Path:
        return Path(self.params.path) / file

    def _lines(self, file: str) -> list[tuple[int, str]]:
        """The lines that are not blank, each with its number."""
        if not self._path(file).parent.is_dir():
            raise DataError(
                f"{self._path(file).parent}: no such folder; bring the corpus in with `finsight corpus add {self.name} FOLDER`, "
                "commit its .dvc file, or fetch it with `dvc pull`"
            )
        with open_text(self._path(file), self.params.encoding, self.name) as opened:
            # Only line ends split: str.splitlines would also split at the latin-1 control 0x85.
            lines = opened.read().replace("\r\n", "\n").split("\n")
            return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
