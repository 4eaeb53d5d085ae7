"""A corpus in numbers: one streamed pass over the raw table, whose memory grows by some 40 bytes a row."""

from __future__ import annotations

import string
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from finsight.params.validate import ValidateParams
from finsight.pipeline.language import foreign_to
from finsight.pipeline.mojibake import damaged
from finsight.pipeline.raw import Rows, equal_texts, hash_numbers, readable, take_rows

# Upper ends of the length bins, in words; what is longer falls into a last one.
LENGTHS = (2, 4, 6, 8, 10, 12, 15, 18, 22, 27, 33, 40, 60, 100, 200, 500)
WORDS = 256  # buckets that words are hashed into, for drift
NAMED = 3  # rows that a message names
BATCH = 16384  # rows in memory at a time
PUNCTUATION = string.punctuation + "–—…‘’“”„«»"
CHARACTERS = 1000  # of a text that tell its language
READ = ["id", "hash", "text", "label", "corpus", "agreement", "date"]


@dataclass
class Profile:
    """One corpus, or all of them.

    :param counts: rows by what is wrong with them: ``missing`` (text), ``empty``, ``short``, ``long``, ``unknown`` (label),
        ``unhashed``, ``damaged``, ``repeated``, ``conflicting``, ``foreign`` (of ``sampled``), and for all corpora ``unnamed`` (id).
    :param first: the first row numbers of each count.
    :param labels: rows by label.
    :param lengths: texts by number of words, in the bins of ``LENGTHS``.
    :param words: words by bucket.
    :param known: rows that state ``agreement`` and ``date``.
    :param foreign_share: estimated share of texts in another language.
    """

    rows: int = 0
    longest: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[int]] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    lengths: Rows = field(default_factory=lambda: np.zeros(len(LENGTHS) + 1, dtype=np.int64))
    words: Rows = field(default_factory=lambda: np.zeros(WORDS, dtype=np.int64))
    known: dict[str, int] = field(default_factory=lambda: {"agreement": 0, "date": 0})
    sampled: int = 0
    foreign_share: float = 0.0

    def mark(self, what: str, rows: Rows) -> None:
        """Count ``rows``, given by their ascending numbers in the table."""
        self.counts[what] = self.counts.get(what, 0) + len(rows)
        first = self.first.setdefault(what, [])
        first += rows[: NAMED - len(first)].tolist()

    def share(self, what: str) -> float:
        """The share of the rows that are counted as ``what``."""
        return self.counts.get(what, 0) / max(1, self.rows)

    def kept(self) -> dict[str, Any]:
        """What a later version of the corpus is compared with, as plain Python."""
        return {
            "rows": self.rows,
            "longest": self.longest,
            **{what: self.counts[what] for what in ("repeated", "conflicting", "damaged")},
            "foreign_share": round(self.foreign_share, 6),
            "labels": self.labels,
            "lengths": self.lengths.tolist(),
            "words": self.words.tolist(),
        }


@dataclass(frozen=True)
class Profiles:
    """Every corpus of a table, all of them as one, and the names of the rows that their counts mention.

    :param distinct: numbers of the rows whose text stands in no earlier row, in the order of their hashes: a prefix is a sample that
        depends on nothing but the texts.
    """

    corpora: dict[str, Profile]
    merged: Profile
    ids: Mapping[int, str]
    distinct: Rows


@dataclass
class _Keys:
    """What rows are compared by, all that stays in memory of each; batches as they were read."""

    rows: int = 0
    hashes: list[NDArray[np.uint64]] = field(default_factory=lambda: [np.zeros((0, 3), dtype=np.uint64)])
    codes: list[NDArray[np.int16]] = field(default_factory=lambda: [np.zeros(0, dtype=np.int16)])
    owners: list[NDArray[np.int16]] = field(default_factory=lambda: [np.zeros(0, dtype=np.int16)])
    ids: list[Rows] = field(default_factory=lambda: [np.zeros(0, dtype=np.int64)])


def read_profiles(path: Path, labels: Sequence[str], params: ValidateParams) -> Profiles:
    """Read the raw table once, and once more the texts that are sampled for their language.

    :raises ArtifactError: when the table is missing or damaged.
    """
    corpora: dict[str, Profile] = {}
    keys = _Keys()
    with readable(path), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH, columns=READ):
            _count_batch(batch, keys, corpora, labels, params)
    hashes, codes, owners = np.concatenate(keys.hashes), np.concatenate(keys.codes), np.concatenate(keys.owners)
    merged = _merge(corpora, labels)
    foreign = foreign_to(params.language) if params.language else None
    for i, profile in enumerate(corpora.values()):
        distinct = _mark_equal(hashes, codes, np.flatnonzero(owners == i), profile)
        if foreign is not None:
            _mark_foreign(path, distinct[: params.language_sample], profile, foreign)
    distinct = _mark_equal(hashes, codes, np.arange(keys.rows), merged)
    _, first, times = np.unique(np.concatenate(keys.ids), return_index=True, return_counts=True)
    merged.mark("unnamed", np.sort(first[times > 1]))
    merged.sampled = sum(p.sampled for p in corpora.values())
    merged.foreign_share = sum(p.foreign_share * p.rows for p in corpora.values()) / max(1, merged.rows)
    mentioned = sorted({row for p in (merged, *corpora.values()) for rows in p.first.values() for row in rows})
    names = take_rows(path, mentioned, ["id"])["id"].to_pylist()
    return Profiles(corpora, merged, dict(zip(mentioned, map(str, names), strict=True)), distinct)


def _count_batch(batch: pa.RecordBatch, keys: _Keys, corpora: dict[str, Profile], labels: Sequence[str], params: ValidateParams) -> None:
    names = batch["corpus"].fill_null("(no corpus)").dictionary_encode()
    owner = np.empty(batch.num_rows, dtype=np.int16)
    for code, name in enumerate(names.dictionary.to_pylist()):
        here = np.flatnonzero(names.indices.to_numpy() == code)
        part = batch if len(here) == batch.num_rows else batch.take(pa.array(here))
        profile = corpora.setdefault(name, Profile(labels=dict.fromkeys(labels, 0)))
        _count(part, here + keys.rows, profile, params)
        owner[here] = list(corpora).index(name)
    keys.owners.append(owner)
    keys.hashes.append(hash_numbers(batch["hash"]))
    keys.codes.append(pc.fill_null(pc.index_in(batch["label"], pa.array(labels, pa.string())), -1).to_numpy().astype(np.int16))
    # Only compared within this process, so its salt does no harm; two of a million ids collide once in 10^7 runs.
    keys.ids.append(np.fromiter(map(hash, batch["id"].to_pylist()), np.int64, batch.num_rows))
    keys.rows += batch.num_rows


def _count(batch: pa.RecordBatch, rows: Rows, profile: Profile, params: ValidateParams) -> None:
    """Add what can be said of each row by itself."""
    texts = pc.fill_null(batch["text"], "")
    missing = pc.is_null(batch["text"]).to_numpy(zero_copy_only=False)
    lengths = pc.utf8_length(texts).to_numpy()
    inner = pc.utf8_length(pc.utf8_trim_whitespace(texts)).to_numpy()
    known = pc.is_in(batch["label"], pa.array(list(profile.labels), pa.string())).to_numpy(zero_copy_only=False)
    texts = pc.utf8_slice_codeunits(texts, 0, params.max_characters)  # one endless text must not cost endless memory
    suspicious = pc.or_(pc.invert(pc.string_is_ascii(texts)), pc.match_substring(texts, "++"))
    chosen = np.flatnonzero(suspicious.to_numpy(zero_copy_only=False))
    bad = [damaged(text) for text in texts.take(pa.array(chosen)).to_pylist()]
    profile.rows += batch.num_rows
    profile.longest = max(profile.longest, int(lengths.max(initial=0)))
    profile.mark("missing", rows[missing])
    profile.mark("empty", rows[(inner == 0) & ~missing])
    profile.mark("short", rows[(inner > 0) & (inner < params.min_characters)])
    profile.mark("long", rows[lengths > params.max_characters])
    profile.mark("unknown", rows[~known])
    profile.mark("damaged", rows[chosen[np.asarray(bad, dtype=bool)]])
    for item in pc.value_counts(batch["label"]).to_pylist():
        if item["values"] in profile.labels:
            profile.labels[item["values"]] += item["counts"]
    for column in profile.known:
        profile.known[column] += batch.num_rows - batch[column].null_count
    _count_words(texts, profile)


def _count_words(texts: pa.Array, profile: Profile) -> None:
    lists = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(pc.utf8_lower(texts)))
    per_text = pc.list_value_length(lists).to_numpy()
    profile.lengths += np.bincount(np.searchsorted(LENGTHS, per_text), minlength=len(LENGTHS) + 1)
    words = lists.flatten().dictionary_encode()
    bare = [word.strip(PUNCTUATION) for word in words.dictionary.to_pylist()]
    # CRC-32 is the same on every machine; a word of nothing but punctuation is none.
    bucket = np.array([zlib.crc32(word.encode()) % WORDS if word else WORDS for word in bare], dtype=np.int64)
    profile.words += np.bincount(bucket[words.indices.to_numpy()], minlength=WORDS + 1)[:WORDS] if len(bare) else 0


def _merge(corpora: Mapping[str, Profile], labels: Sequence[str]) -> Profile:
    """The sums; what rows of different corpora have in common is counted elsewhere."""
    merged = Profile(labels=dict.fromkeys(labels, 0))
    for profile in corpora.values():
        merged.rows += profile.rows
        merged.longest = max(merged.longest, profile.longest)
        merged.lengths += profile.lengths
        merged.words += profile.words
        for what, n in profile.counts.items():
            merged.counts[what] = merged.counts.get(what, 0) + n
            merged.first[what] = sorted([*merged.first.get(what, []), *profile.first[what]])[:NAMED]
        for label, n in profile.labels.items():
            merged.labels[label] += n
        for column, n in profile.known.items():
            merged.known[column] += n
    return merged


def _mark_equal(hashes: NDArray[np.uint64], codes: NDArray[np.int16], rows: Rows, profile: Profile) -> Rows:
    """Count texts that occur more than once among ``rows``; return the first row of each text, in the order of the hashes."""
    unhashed = hashes[rows, 2] > 0
    distinct, repeated, conflicting = equal_texts(hashes, codes, rows[~unhashed])
    profile.mark("unhashed", rows[unhashed])
    profile.mark("repeated", repeated)
    profile.mark("conflicting", conflicting)
    return distinct


def _mark_foreign(path: Path, distinct: Rows, profile: Profile, foreign: Callable[[str], bool]) -> None:
    rows = np.sort(distinct)
    texts = take_rows(path, rows, ["text"])["text"].fill_null("").to_pylist()
    found = np.array([foreign(text[:CHARACTERS]) for text in texts], dtype=bool)
    profile.sampled = len(rows)
    profile.mark("foreign", rows[found])
    profile.foreign_share = float(found.mean()) if len(rows) else 0.0
