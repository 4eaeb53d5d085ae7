"""Token ids of many texts, each distinct word tokenised once where the tokenizer looks at words one by one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

Flat = NDArray[np.int32]
Offsets = NDArray[np.int64]
MOST_WORDS = 200_000  # that are remembered from batch to batch, some 200 MB
PROBE = 256  # texts of the first batch on which the word-wise ids are compared with the tokenizer's own


class TextTokenizer:
    """Tokenises normalised texts (single spaces, none at the ends).

    BERT's pre-tokenizer always splits at a space and nothing of its normaliser or of WordPiece reaches across one, so that a text's ids
    are the ids of its words in a row. A word is tokenised once then, which is several times faster than each text as a whole.
    Other tokenizers (byte-level BPE, SentencePiece) get the whole text.

    :param definition: the content of ``tokenizer.json``.
    :param max_length: tokens that a text is cut to, the special ones included.
    """

    def __init__(self, definition: str, max_length: int) -> None:
        self._tokenizer = Tokenizer.from_str(definition)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.digest, self.max_length = hashlib.sha256(definition.encode()).hexdigest(), max_length
        self.wordwise = _looks_at_words(json.loads(definition))
        body = self._tokenizer.encode("a", add_special_tokens=False).ids
        whole = self._tokenizer.encode("a").ids
        at = next(i for i in range(len(whole)) if whole[i : i + len(body)] == body)
        self._known: dict[str, list[int]] = {}
        self._before, self._after = np.array(whole[:at], np.int32), np.array(whole[at + len(body) :], np.int32)

    def encode(
        self, texts: Sequence[str], vocabulary: Sequence[str], codes: NDArray[np.int32], offsets: Offsets
    ) -> tuple[Flat, Offsets, int]:
        """Ids of all texts one after another, where each text's begin, and how many texts were cut.

        :param vocabulary: the distinct words of the texts, ``codes`` and ``offsets`` the texts in terms of them.
        """
        if self.wordwise:
            ids, ends = self._by_word(vocabulary, codes, offsets)
            if self._agrees(texts[:PROBE], ids, ends):
                return self._finish(ids, ends)
            self.wordwise = False
        return self._finish(*self._whole(texts))

    def _whole(self, texts: Sequence[str]) -> tuple[Flat, Offsets]:
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
        return _flatten(rows)

    def _by_word(self, vocabulary: Sequence[str], codes: NDArray[np.int32], offsets: Offsets) -> tuple[Flat, Offsets]:
        if len(self._known) > MOST_WORDS:
            self._known = {}  # a new one: another thread may be reading the old
        known = self._known
        new = [word for word in vocabulary if word not in known]
        for word, encoding in zip(new, self._tokenizer.encode_batch_fast(new, add_special_tokens=False), strict=True):
            known[word] = encoding.ids
        pieces, starts = _flatten([known[word] for word in vocabulary])
        sizes = np.diff(starts)[codes]
        ends = np.r_[0, np.cumsum(sizes)]
        return pieces[np.repeat(starts[codes] - ends[:-1], sizes) + np.arange(ends[-1])], ends[offsets]

    def _agrees(self, texts: Sequence[str], ids: Flat, offsets: Offsets) -> bool:
        expected, ends = self._whole(texts)
        n = len(texts)
        return np.array_equal(ends, offsets[: n + 1]) and np.array_equal(expected, ids[: ends[-1]])

    def _finish(self, ids: Flat, offsets: Offsets) -> tuple[Flat, Offsets, int]:
        """Cut each text to its length and put the special tokens around it."""
        room = self.max_length - len(self._before) - len(self._after)
        sizes = np.diff(offsets)
        kept = np.minimum(sizes, room)
        ends = np.r_[0, np.cumsum(kept + len(self._before) + len(self._after))]
        out = np.empty(ends[-1], dtype=np.int32)
        for i, token in enumerate(self._before):
            out[ends[:-1] + i] = token
        for i, token in enumerate(self._after):
            out[ends[1:] - len(self._after) + i] = token
        inner = np.arange(kept.sum()) - np.repeat(np.r_[0, np.cumsum(kept)[:-1]], kept)
        out[np.repeat(ends[:-1] + len(self._before), kept) + inner] = ids[np.repeat(offsets[:-1], kept) + inner]
        return out, ends, int((sizes > room).sum())


def _looks_at_words(definition: dict[str, Any]) -> bool:
    kinds = {part: (definition.get(part) or {}).get("type") for part in ("normalizer", "pre_tokenizer", "model")}
    across = any(" " in token["content"] for token in definition.get("added_tokens", []))  # such a token is longer than a word
    bert = (
        kinds["model"] == "WordPiece" and kinds["pre_tokenizer"] == "BertPreTokenizer" and kinds["normalizer"] in ("BertNormalizer", None)
    )
    return bert and not across


def _flatten(rows: Sequence[Sequence[int]]) -> tuple[Flat, Offsets]:
    offsets = np.r_[0, np.cumsum([len(row) for row in rows], dtype=np.int64)]
    return np.fromiter((token for row in rows for token in row), np.int32, int(offsets[-1])), offsets
