"""Ingest streams: every row is counted once, whatever becomes of it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from conftest import LABELS
from finsight.domain.records import Example, Rejection, content_hash, normalise
from finsight.errors import DataError, ParamsError
from finsight.params.corpora import Corpus, FiqaCorpus, TableCorpus
from finsight.params.ingest import IngestParams
from finsight.pipeline import ingest as module
from finsight.pipeline.ingest import extra_columns, ingest


@dataclass
class Rows:
    """A reader of what it is given."""

    rows: list[Example | Rejection]
    encodings: Mapping[str, str] = field(default_factory=dict)

    def read(self) -> Iterator[Example | Rejection]:
        yield from self.rows

    def facts(self) -> Mapping[str, Any]:
        return {"encodings": self.encodings}


def example(n: int, corpus: str = "a", text: str | None = None, label: str = "neutral", **further: Any) -> Example:
    return Example(f"{corpus}/f:{n}", text or f"{corpus} text {n}", label, corpus, **further)


def table(**params: Any) -> TableCorpus:
    return TableCorpus(path="x", license="x", format="csv", **params)


@dataclass
class Run:
    """Ingest in a folder of its own."""

    root: Path

    def __call__(
        self,
        readers: Mapping[str, Rows],
        corpora: Mapping[str, Corpus] | None = None,
        corrections: str | None = None,
        allowed: float = 1.0,
        texts: Mapping[str, Rows] | None = None,
    ) -> dict[str, Any]:
        if corrections is not None:
            (self.root / "corrections.csv").write_text(corrections)
        found = ingest(
            readers,
            LABELS,
            IngestParams(corpora=list(readers), unlabelled=list(texts or {}), max_quarantined=allowed),
            corpora or {name: table() for name in readers},
            self.root / "corrections.csv",
            self.root / "corpus.parquet",
            self.root / "quarantine.parquet",
            self.root / "ingest.json",
            texts or {},
            self.root / "unlabelled.parquet",
        )
        assert json.loads((self.root / "ingest.json").read_text()) == found
        return found

    def rows(self) -> list[dict[str, Any]]:
        return pq.read_table(self.root / "corpus.parquet").to_pylist()

    def quarantine(self) -> list[dict[str, Any]]:
        return pq.read_table(self.root / "quarantine.parquet").to_pylist()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_rows_are_written_by_groups_of_one_corpus_and_add_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROW_GROUP", 8)
    rows: dict[str, list[Example | Rejection]] = {"a": [], "b": []}
    for name, n in (("a", 30), ("b", 11)):
        for i in range(n):
            rows[name].append(example(i, name, label=LABELS[i % 3]))
        rows[name].append(example(98, name, text=" "))
        rows[name].append(Rejection(f"{name}/f:99", name, "asked for", "raw", ignored=True))
    found = run({name: Rows(r) for name, r in rows.items()})
    assert (found["rows"], found["quarantined"], found["ignored"]) == (41, 2, 2)
    assert found["corpora"]["a"]["rows"] == 30
    assert found["corpora"]["a"]["labels"] == dict.fromkeys(LABELS, 10)
    assert found["corpora"]["b"]["reasons"] == {"empty text": 1}
    file = pq.ParquetFile(run.root / "corpus.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [8, 8, 8, 6, 8, 3]
    assert [r["corpus"] for r in run.rows()] == ["a"] * 30 + ["b"] * 11
    assert [r["reason"] for r in run.quarantine()] == ["empty text", "asked for"] * 2
    file = pq.ParquetFile(run.root / "quarantine.parquet")
    assert file.num_row_groups == 2


def test_the_hash_is_of_the_normalised_text(run: Run) -> None:
    run({"a": Rows([example(1, text="net\n sales "), example(2, text="net sales")])})
    assert {r["hash"] for r in run.rows()} == {content_hash("net sales")}


def test_what_corpora_keep_becomes_columns(run: Run) -> None:
    full = example(1, split="test", agreement=75, date="2024-02-29T00:00:00Z", group="Nokia", extra={"kind": "post"})
    corpora: dict[str, Corpus] = {
        "a": table(keep=["kind"]),
        "b": FiqaCorpus(path="x", license="x", format="fiqa", thresholds={"neutral": 1.0}),
    }
    run({"a": Rows([full]), "b": Rows([example(1, "b", extra={"target": "X", "aspect": ""})])}, corpora)
    first, second = run.rows()
    assert list(first) == ["id", "hash", "text", "label", "corpus", "split", "agreement", "date", "group", "aspect", "kind", "target"]
    assert (first["split"], first["agreement"], first["date"], first["group"]) == ("test", 75, "2024-02-29T00:00:00Z", "Nokia")
    assert (first["kind"], first["target"]) == ("post", None)
    assert (second["kind"], second["target"], second["aspect"]) == (None, "X", "")
    with pytest.raises(ParamsError, match=r"corpora\.a\.keep: 'hash' is a column of the table itself"):
        extra_columns({"a": table(keep=["hash"])})


def test_corrections_are_applied_and_counted(run: Run) -> None:
    texts = ["changed", "left out", "confirmed", "unknown label", "untouched"]
    rows = [example(i, text=t, label="bullish" if t == "unknown label" else "neutral") for i, t in enumerate(texts)]
    labels = {"changed": "positive", "left out": "", "confirmed": "neutral", "unknown label": "positive", "gone": "negative"}
    lines = "".join(f'{content_hash(t)},{label},note,"a, b"\n' for t, label in labels.items())
    found = run({"a": Rows([*rows, example(9, text="  changed ")])}, corrections="hash,label,id,text\n" + lines)
    assert found["corrections"] == {"changed": 3, "left_out": 1, "confirmed": 1, "unmatched": 1}
    assert (found["rows"], found["quarantined"], found["ignored"]) == (5, 0, 1)
    assert {r["text"]: r["label"] for r in run.rows()}["unknown label"] == "positive"
    assert run.quarantine()[0]["reason"].startswith("left out by ")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("text,label\n", r"corrections\.csv: line 1: no column 'hash' in \['text', 'label'\]"),
        ("", r"line 1: no column 'hash'"),
        (f"hash,label\n\n{'0' * 32},bullish\n", r"line 3: label 'bullish' is not in \['negative', 'neutral', 'positive'\]"),
        ("hash,label\nxyz,neutral\n", "line 2: 'xyz' is no hash of a text"),
        ("hash,label\na\n", "line 2: 1 columns where the header has 2"),
        (f"hash,label\n{'0' * 32},neutral\n{'0' * 32},\n", "line 3: the text 0{32} has two labels, 'neutral' and ''"),
        ('hash,label\n"a"b,\n', "line 2: not CSV"),
    ],
)
def test_a_malformed_correction_is_named_by_its_line(content: str, says: str, run: Run) -> None:
    with pytest.raises(DataError, match=says):
        run({"a": Rows([example(1)])}, corrections=content)
    assert [p.name for p in run.root.iterdir()] == ["corrections.csv"]


def test_mojibake_is_repaired_where_a_corpus_asks_for_it(run: Run) -> None:
    rows = [example(1, text="KÃ¶ln"), example(2, text="Köln"), example(3, text="cologne")]
    found = run({"a": Rows(list(rows)), "b": Rows([example(1, "b", text="KÃ¶ln")])}, {"a": table(repair_mojibake=True), "b": table()})
    assert [c["mojibake_repaired"] for c in found["corpora"].values()] == [1, 0]
    assert [r["text"] for r in run.rows()] == ["Köln", "Köln", "cologne", "KÃ¶ln"]


def test_encodings_are_named_by_file_and_of_many_files_counted(run: Run) -> None:
    many = {f"f{i}": "utf-8" if i else "utf-16" for i in range(21)}
    found = run({"a": Rows([example(1)], {"f": "utf-8"}), "b": Rows([example(1, "b")], many)}, {"a": table(known_as="fiqa"), "b": table()})
    assert [c["encodings"] for c in found["corpora"].values()] == [{"f": "utf-8"}, {"utf-16": 1, "utf-8": 20}]
    assert [c["known_as"] for c in found["corpora"].values()] == ["fiqa", None]


def test_ignored_rows_are_not_unfit(run: Run) -> None:
    ignored: list[Example | Rejection] = [Rejection(f"a/f:{i}", "a", "asked for", "", ignored=True) for i in range(9)]
    assert run({"a": Rows([*ignored, example(10)])}, allowed=0.0)["ignored"] == 9
    with pytest.raises(DataError, match=r"corpora\.a: no rows but 9 that are ignored; check its label_map"):
        run({"a": Rows(ignored)})
    with pytest.raises(DataError, match=r"1 of 2 rows are unfit, 1 of them with empty text \(a/f:2\)"):
        run({"a": Rows([*ignored, example(1), example(2, text=" ")])}, allowed=0.4)


def test_reasons_that_are_all_different_are_counted_together(run: Run) -> None:
    unfit: list[Example | Rejection] = [example(i, label=f"l{i}") for i in range(1000)]
    reasons = run({"a": Rows([example(0), *unfit])})["corpora"]["a"]["reasons"]
    assert len(reasons) == module.REASONS + 1
    assert sum(reasons.values()) == 1000


def test_normalise_is_what_the_hash_is_of() -> None:
    assert content_hash(normalise(" a  b ")) == content_hash("a b")
