"""FiQA 2018, task 1 (Maia et al. 2018): sentences by id, each with the targets it speaks of and a score in [-1, 1] for each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from finsight.adapters import table_cells as cells
from finsight.adapters.corpus_files import list_files
from finsight.adapters.json_tables import entries
from finsight.adapters.table_formats import SUFFIXES, Layout
from finsight.domain.records import Example, Rejection
from finsight.params.corpora import FiqaCorpus

_SCORES = ("sentiment_score", "sentiment score")  # headlines and posts were published in either spelling
_KEY = re.compile(r"[\w-]{1,40}")


@dataclass(frozen=True, slots=True)
class FiqaReader:
    """Reads the JSON files; a sentence with two targets is two examples, whose labels may differ."""

    name: str
    params: FiqaCorpus
    _encodings: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    def read(self) -> Iterator[Example | Rejection]:
        """See :class:`finsight.ports.CorpusReader`."""
        layout = Layout(self.name, self.params.encoding, encodings=self._encodings)
        for file in list_files(self.params.path, self.name, SUFFIXES["json"]):
            seen: set[str] = set()
            for number, (key, entry) in enumerate(entries(file, layout), start=1):
                # A key that can't stand in an id, or stands in the file twice, gives way to the entry's number.
                known = key is not None and _KEY.fullmatch(key) and key not in seen
                place = key if known and key is not None else str(number) if key is None else f"n{number}"
                seen.add(place)
                yield from self._examples(f"{self.name}/{file.shown}:{place}", entry)

    def facts(self) -> Mapping[str, Any]:
        """See :class:`finsight.ports.CorpusReader`."""
        return {"encodings": self._encodings}

    def _examples(self, id_: str, entry: Any) -> Iterator[Example | Rejection]:
        if not isinstance(entry, dict) or not isinstance(entry.get("sentence"), str):
            yield Rejection(id_, self.name, "no sentence", cells.raw(entry))
            return
        # The data set's copies are flat: one target an entry, beside its sentence.
        infos = entry.get("info", [entry])
        if not isinstance(infos, list) or not infos:
            yield Rejection(id_, self.name, "no list of targets under info", cells.raw(entry))
            return
        for n, info in enumerate(infos, start=1):
            yield self._example(f"{id_}.{n}", entry["sentence"], info)

    def _example(self, id_: str, sentence: str, info: Any) -> Example | Rejection:
        try:
            if not isinstance(info, dict):
                raise cells.UnfitError("a target that is no object")
            score = next((info[key] for key in _SCORES if key in info), None)
            label = cells.label_of(score, self.params.thresholds)
            extra = {
                "target": cells.sound(cells.plain(info.get("target"))),
                "aspect": cells.sound(_names(info.get("aspects", info.get("aspect")))),
            }
            return Example(id_, cells.text(sentence), label, self.name, extra=extra)
        except cells.UnfitError as unfit:
            return Rejection(id_, self.name, cells.sound(str(unfit)), cells.raw([sentence, info]))


def _names(aspects: Any) -> str:
    """Names from a list, or from one written as text (``"['Stock/Price Action']"``), which is not evaluated: some are malformed."""
    if isinstance(aspects, list):
        return "; ".join(cells.plain(a) for a in aspects)
    text = cells.plain(aspects)
    return "; ".join(re.findall(r"[^\[\]'\",]*\w[^\[\]'\",]*", text)) if text.lstrip().startswith("[") else text
