"""What a corpus consists of."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled text.

    :param id: where it stands, ``corpus/file:line`` (1-based), unique in a run.
    :param split: the corpus's own split, one of ``SPLITS``, or None where it has none.
    :param agreement: lowest percentage of annotators known to agree on the label, or None where unknown.
    :param date: when it was published, ISO 8601 in UTC to the second (so that text order is time order), or None.
    :param group: what must stay in one split beyond near-duplicates (a company, an article), or None.
    :param extra: further columns that the corpus keeps (``kind``, ``ticker``, …), by name.
    """

    id: str
    text: str
    label: str
    corpus: str
    split: str | None = None
    agreement: int | None = None
    date: str | None = None
    group: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that is not an example, and why; ``raw`` is the row as it was read.

    :param ignored: the user asked to leave it out (a label mapped to nothing), so it does not count as unfit.
    """

    id: str
    corpus: str
    reason: str
    raw: str
    ignored: bool = False


def content_hash(text: str) -> str:
    """The SHA-256 of a text's UTF-8 bytes, its first 128 bits in hexadecimal: equal texts, equal hashes, on any machine."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def normalise(text: str) -> str:
    """Unicode NFC with each run of white space made one space and the ends stripped; case and punctuation stay."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def examine(example: Example, labels: list[str]) -> Example | Rejection:
    """The example itself, or the reason why it can't be one: an empty text, or a label that is not in ``labels``."""

    def reject(reason: str) -> Rejection:
        return Rejection(example.id, example.corpus, reason, f"{example.text!r}, {example.label!r}")

    if not example.text.strip():
        return reject("empty text")
    if "\x00" in example.text:
        return reject("NUL byte in the text")
    if example.label not in labels:
        return reject(f"label {example.label!r} is not in {labels}")
    if example.split is not None and example.split not in SPLITS:
        return reject(f"split {example.split!r} is not in {list(SPLITS)}")
    return example
