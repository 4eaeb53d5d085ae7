"""Word-wise tokenising equals the tokenizer's own, and whole texts are used where it can't."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from conftest import starter_rows
from finsight.domain.records import normalise
from finsight.modeling.tokens import TextTokenizer
from finsight.pipeline.words import split_words

ODD = [
    "naïve café — 50% of €1.2bn; [MASK] x[SEP]y ##ing",
    "股价 上涨 5% 日本株 한국",
    "İstanbul'da ﬁnal ½ ̈a zero\u200bwidth \ufeffbom",
    "😀😀 to the 🌕",
    "a" * 150 + " b",
    "-- ... !?",
    "",
    "x",
]


def encode(tokenizer: TextTokenizer, texts: list[str]) -> tuple[list[list[int]], int]:
    words = split_words(pa.array(texts, pa.string()))
    ids, offsets, cut = tokenizer.encode(texts, words.vocabulary, words.codes, words.offsets)
    return [ids[a:b].tolist() for a, b in pairwise(offsets)], cut


@pytest.mark.parametrize("max_length", [8, 32, 512])
def test_word_wise_ids_are_the_tokenizers_own(tiny_backbone: Path, max_length: int) -> None:
    definition = (tiny_backbone / "tokenizer.json").read_text()
    texts = [normalise(t) for t in [*ODD, *(row["text"] for row in starter_rows(400))]]
    reference = Tokenizer.from_str(definition)
    reference.enable_truncation(max_length)
    full = Tokenizer.from_str(definition)
    full.no_truncation()
    tokenizer = TextTokenizer(definition, max_length)
    got, cut = encode(tokenizer, texts)
    assert tokenizer.wordwise
    assert got == [e.ids for e in reference.encode_batch(texts)]
    assert cut == sum(len(e.ids) > max_length for e in full.encode_batch(texts))


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    special = ["<s>", "</s>", "<pad>"]
    tokenizer.train_from_iterator(
        [row["text"] for row in starter_rows(400)], trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    return tokenizer


def lying() -> Tokenizer:
    """Looks like BERT's, but its normaliser reaches across spaces."""
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "##b": 4, "b": 5}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer.add_tokens(["a b"])
    return tokenizer


@pytest.mark.parametrize("make", [byte_level, lying])
def test_other_tokenizers_get_whole_texts(make) -> None:
    reference = make()
    texts = ["a b", "b a", "Profit rose to 5 a b"]
    tokenizer = TextTokenizer(reference.to_str(), 16)
    got, _ = encode(tokenizer, texts)
    assert not tokenizer.wordwise
    assert got == [e.ids for e in reference.encode_batch(texts)]


def test_a_text_without_tokens_keeps_its_special_ones(tiny_backbone: Path) -> None:
    definition = (tiny_backbone / "tokenizer.json").read_text()
    vocabulary = json.loads(definition)["model"]["vocab"]
    got, cut = encode(TextTokenizer(definition, 16), [""])
    assert got == [[vocabulary["[CLS]"], vocabulary["[SEP]"]]]
    assert cut == 0
    assert np.array(got).dtype == np.int64
