"""Texts as words: split once per batch, each distinct word looked at once. What tokenising and finding near-duplicates have in common."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from finsight.domain.dedup import Hashes, Ids, scramble

if TYPE_CHECKING:
    from finsight.modeling.tokens import TextTokenizer
    from finsight.pipeline.token_cache import Tokens

NUMBER, NAME = scramble(np.array([1, 2], np.uint64))  # what masked words become
# In a text with fewer words that are not masked only numbers are: "Nokia shares fall 4 %" is another text than "Elisa shares fall 9 %".
PLAIN_WORDS = 4
PLAIN, CAPITAL, NUMERIC, NOTHING = range(4)

_EDGES = re.compile(r"^\W+|(?:'s|’s)?\W*$")
_DIGIT = re.compile(r"\d")
_ADDRESS = re.compile(r"^(https?://|www\.|rt$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Words:
    """Normalised texts as word numbers.

    :param vocabulary: the distinct words.
    :param codes: index into the vocabulary of each word of each text, all texts one after another.
    :param offsets: text i has the words from ``offsets[i]`` to ``offsets[i + 1]``.
    """

    vocabulary: list[str]
    codes: NDArray[np.int32]
    offsets: Ids


def split_words(texts: pa.Array) -> Words:
    """Split normalised texts (see :func:`finsight.domain.records.normalise`) at their spaces."""
    lists = pc.split_pattern(texts, " ")
    coded = lists.flatten().dictionary_encode()
    return Words(coded.dictionary.to_pylist(), coded.indices.to_numpy(), lists.offsets.to_numpy().astype(np.int64))


def encode(texts: pa.Array, tokenizer: TextTokenizer) -> Tokens:
    """Token ids of normalised texts, one after another, their offsets, and how many texts were cut."""
    words = split_words(texts)
    return tokenizer.encode(texts.to_pylist(), words.vocabulary, words.codes, words.offsets)


def features(words: Words) -> tuple[Hashes, Ids, NDArray[np.uint64]]:
    """What near-duplicates share: the hashes of a text's words and word pairs, numbers and names masked, as ragged sets.

    Wire copies that differ in a figure or a company get equal features. In a text where most words are capital, as in headlines, a
    capital marks no name, and none is masked. Case and the punctuation around words play no role.

    :returns: features and offsets as :mod:`finsight.domain.dedup` has them, and for each text one hash of all its words in order,
        unmasked, which is equal for texts that differ in case and punctuation only (0 for a text without words).
    """
    hashes, kinds = _look_at(words.vocabulary)
    n = len(words.offsets) - 1
    row = np.repeat(np.arange(n), np.diff(words.offsets))
    code = words.codes[kinds[words.codes] != NOTHING]
    row = row[kinds[words.codes] != NOTHING]
    kind, plain = kinds[code], hashes[code]

    first = np.r_[True, row[1:] != row[:-1]] if len(row) else np.zeros(0, bool)
    capital = kind == CAPITAL
    letters = np.bincount(row[kind != NUMERIC], minlength=n)
    # The first word of a sentence is capital anyway: it counts as a name when the next one is capital too ("Nokia Oyj said").
    follows = np.r_[~first[1:] & (kind[1:] == CAPITAL), False] if len(row) else np.zeros(0, bool)
    titled = 2 * np.bincount(row[capital], minlength=n) > letters
    named = capital & ~titled[row] & (~first | follows)
    named &= (np.bincount(row[~named & (kind != NUMERIC)], minlength=n) >= PLAIN_WORDS)[row]
    masked = np.where(kind == NUMERIC, NUMBER, np.where(named, NAME, plain))
    enough = letters >= 2  # "4 %" and "9 %" share nothing else
    paired = ~first[1:] & enough[row[1:]] if len(row) else np.zeros(0, bool)
    singles = masked[enough[row]]
    pairs = scramble(masked[:-1] * np.uint64(3) + masked[1:])[paired]
    owner = np.concatenate([row[enough[row]], row[1:][paired]])
    tagged = (owner.astype(np.uint64) << np.uint64(32)) | (np.concatenate([singles, pairs]) >> np.uint64(32))
    tagged.sort()  # numpy.unique hashes first and takes 60 times as long
    tagged = tagged[np.r_[True, tagged[1:] != tagged[:-1]][: len(tagged)]]
    counts = np.bincount((tagged >> np.uint64(32)).astype(np.int64), minlength=n)
    return tagged.astype(np.uint32), np.r_[0, np.cumsum(counts)], _in_order(plain, row, first, n)


def _in_order(plain: NDArray[np.uint64], row: Ids, first: NDArray[np.bool_], n: int) -> NDArray[np.uint64]:
    """One hash a text of its words in their order."""
    found = np.zeros(n, dtype=np.uint64)
    if len(row):
        starts = np.flatnonzero(first)
        place = (np.arange(len(row)) - np.repeat(starts, np.diff(np.r_[starts, len(row)]))).astype(np.uint64)
        found[row[starts]] = np.add.reduceat(scramble(plain + scramble(place + np.uint64(1))), starts)
    return found


def _look_at(vocabulary: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int8]]:
    """For each word the hash of its bare form, and its kind."""
    looked = [_look(word) for word in vocabulary]
    return np.array([hash_ for hash_, _ in looked], np.uint64), np.array([kind for _, kind in looked], np.int8)


@lru_cache(1 << 17)  # batches share most of their words
def _look(word: str) -> tuple[int, int]:
    bare = _EDGES.sub("", word)
    if not bare or _ADDRESS.match(word):
        return 0, NOTHING
    kind = NUMERIC if _DIGIT.search(bare) else CAPITAL if bare[0].isupper() or word[0] in "$@" else PLAIN
    return int.from_bytes(hashlib.blake2b(bare.lower().encode(), digest_size=8).digest(), "little"), kind
