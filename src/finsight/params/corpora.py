"""``corpora``: where labelled text is and how to read it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from finsight.params.base import Section

Column = Annotated[str, Field(min_length=1)] | Annotated[int, Field(ge=0)]
"""A column by its name in the header, or by its number, from 0."""

Thresholds = dict[str, float]
"""Label → the highest score that still gets it, ascending: ``{negative: -0.1, neutral: 0.1, positive: 1.0}``."""


class Corpus(Section):
    """What each corpus has, whatever its format. The optional keys describe the file and default to the plain case."""

    path: str
    """File, folder or glob, relative to the project's root; compressed files (.gz, .zst, .zip) are read as they are."""

    license: str
    """SPDX identifier; it travels with every model trained on the corpus."""

    known_as: str | None = None
    """What the literature calls it (``phrasebank``, ``fiqa``, ``twitter-financial-news``): compared with what a backbone was trained on."""

    label_map: dict[str | int, str | None] = Field(default_factory=dict)
    """From the labels of the file to those of ``labels``; others stay as they are; one that is mapped to nothing is left out."""

    encoding: str = "auto"
    """``auto``: a byte-order mark or valid UTF-8 (PhraseBank: else latin-1), or a refusal that names a candidate; or a Python codec."""

    repair_mojibake: bool = False
    """Whether texts that were decoded wrongly once (``Ã¤`` for ``ä``) are repaired; the report counts them."""


class TableCorpus(Corpus):
    """Rows with named or numbered columns. ``table`` goes by each file's suffix; the other formats hold for every file."""

    format: Literal["table", "csv", "json", "jsonl", "parquet", "excel"]
    text: Column = "text"
    """Column of the text."""
    label: Column | None = "label"
    """Column of the label; not used where ``score`` is set; empty for texts that ``ingest.unlabelled`` names."""
    score: Column | None = None
    """Column of a number that ``thresholds`` turn into a label."""
    thresholds: Thresholds = Field(default_factory=dict)
    split: Column | None = None
    """Column of the corpus's own split (train / validation / test), if it has one."""
    split_files: dict[Literal["train", "validation", "test"], str] = Field(default_factory=dict)
    """Or: split → file name or pattern, for a corpus that comes as one file a split."""
    agreement: Column | None = None
    """Column of the percentage of annotators who agree on the label."""
    date: Column | None = None
    """Column of the date or time of publication, ISO 8601 unless ``date_format`` says otherwise; UTC unless it states a zone."""
    date_format: str | None = None
    """Format for :func:`datetime.datetime.strptime`."""
    group: Column | None = None
    """Column whose equal values must stay in one split (a company, an article)."""
    keep: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    """Further columns to carry along for slices."""
    header: bool = True
    """Whether the first line of delimited text, or row of a sheet, names the columns."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """Of delimited text; a tab for ``.tsv``, else a comma."""
    sheet: str | None = None
    """Sheet of a workbook; its first one by default."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if (self.score is None) != (not self.thresholds):
            raise ValueError("score and thresholds go together: a column of numbers, and for each label the highest that gets it")
        if self.split is not None and self.split_files:
            raise ValueError("split and split_files exclude each other")
        if not self.header:
            named = [k for k in ("text", "label", "score", "split", "agreement", "date", "group") if isinstance(getattr(self, k), str)]
            if self.keep or (named and named != ["label"]) or (named == ["label"] and self.score is None):
                raise ValueError("header is false, so columns have numbers, from 0; set text and label to numbers and keep to []")
        return self


class PhraseBankCorpus(Corpus):
    """The official text files of the Financial PhraseBank (Malo et al. 2014): ``sentence@label``."""

    format: Literal["phrasebank"]
    agreement: Literal[50, 66, 75, 100] = 50
    """Lowest share of agreeing annotators, in percent; it names the file that is read."""
    split: Literal["finbert"] | None = None
    """``finbert``: the split of finBERT's published code, computed by its rule; it is defined on agreement 50 only."""
    known_as: str | None = "phrasebank"


class FiqaCorpus(Corpus):
    """The JSON files of the FiQA 2018 challenge, task 1: an object by id, each with a sentence and its scored targets."""

    format: Literal["fiqa"]
    thresholds: Thresholds
    known_as: str | None = "fiqa"


AnyCorpus = Annotated[TableCorpus | PhraseBankCorpus | FiqaCorpus, Field(discriminator="format")]
