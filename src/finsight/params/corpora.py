"""``corpora``: where labelled text is and how to read it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from finsight.params.base import Section


class Corpus(Section):
    """What each corpus has, whatever its format. The optional keys describe the file and default to the plain case."""

    path: str
    """File or folder, relative to the project's root."""

    license: str
    """SPDX identifier; it travels with every model trained on the corpus."""

    label_map: dict[str | int, str] = Field(default_factory=dict)
    """From the labels of the file to those of ``labels``; a label that is not named stays as it is."""


class CsvCorpus(Corpus):
    """Delimited text with a header line."""

    format: Literal["csv"]
    text: str = "text"
    """Column of the text."""
    label: str = "label"
    """Column of the label."""
    split: str | None = None
    """Column of the corpus's own split (train / validation / test), if it has one."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    encoding: str = "utf-8-sig"
    """Python codec name; ``utf-8-sig`` reads UTF-8 with and without a byte-order mark."""


class PhraseBankCorpus(Corpus):
    """The official text files of the Financial PhraseBank (Malo et al. 2014): ``sentence@label``."""

    format: Literal["phrasebank"]
    agreement: Literal[50, 66, 75, 100] = 50
    """Lowest share of agreeing annotators, in percent; it names the file that is read."""
    split: Literal["finbert"] | None = None
    """``finbert``: the split of finBERT's published code, computed by its rule; it is defined on agreement 50 only."""
    encoding: str = "latin-1"


AnyCorpus = Annotated[CsvCorpus | PhraseBankCorpus, Field(discriminator="format")]
