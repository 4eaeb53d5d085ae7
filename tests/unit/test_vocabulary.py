"""A trimmed tokenizer says the same of texts whose tokens it kept, and spells every other text; the model gives the same logits."""

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_families import FAMILIES, SHAPE
from tokenizers import (
    AddedToken,
    BertWordPieceTokenizer,
    ByteLevelBPETokenizer,
    CharBPETokenizer,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoModelForSequenceClassification, BertConfig, PreTrainedConfig, PreTrainedModel, RobertaConfig

from conftest import starter_rows
from finsight.errors import ArtifactError
from finsight.modeling.checkpoint import load_checkpoint, save_checkpoint
from finsight.modeling.vocabulary import trim_embeddings, trim_tokenizer

ODD = [
    "naïve café — 50% of €1.2bn; [MASK] x[SEP]y ##ing <pad></s> <0x41>",
    "股价 上涨 5% 日本株 한국",
    "الأسهم ترتفع ١٢٪ اليوم וגם מניות \u202bעולות\u202c",
    "😀😀 to the 🌕 👩🏽‍💻 🇫🇮",
    "a\x01b\x07c \x7f \u200b \ufeffbom \ufffd tab\tnew\nline",
    "a" * 150 + " b",
    "-- ... !? $TSLA #EBITDA",
    "",
    " ",
    "x",
]


# What a tokenizer says, by hand.


def word_piece() -> Tokenizer:
    tokens = ["unused", "[PAD]", "profit", "[UNK]", "[CLS]", "[SEP]", "p", "##s", "prof", "##it", "##i", "##t", "##o", "##f", "##r", "rare"]
    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]"])
    tokenizer.add_tokens(["Nokia Oyj"])
    return tokenizer


def test_word_pieces_are_kept_with_all_single_characters() -> None:
    trimmed, kept = trim_tokenizer(word_piece().to_str(), [8, 9])
    vocabulary = Tokenizer.from_str(trimmed).get_vocab()
    names = ["[PAD]", "[UNK]", "p", "##s", "prof", "##it", "##i", "##t", "##o", "##f", "##r", "Nokia Oyj"]
    assert sorted(vocabulary, key=lambda token: vocabulary[token]) == names
    assert sorted(vocabulary.values()) == list(range(12))
    assert kept.tolist() == [1, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16]
    assert kept.dtype == np.int64
    tokenizer = Tokenizer.from_str(trimmed)
    assert tokenizer.encode("profit profs rare Nokia Oyj").tokens == ["prof", "##it", "prof", "##s", "[UNK]", "Nokia Oyj"]
    assert tokenizer.get_added_tokens_decoder()[0].special


PROCESSORS: dict[str, Any] = {
    "bert": processors.BertProcessing(("[SEP]", 5), ("[CLS]", 4)),
    "roberta": processors.RobertaProcessing(("[SEP]", 5), ("[CLS]", 4)),
    "template": processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 4), ("[SEP]", 5)]),
    "sequence": processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 4), ("[SEP]", 5)])]
    ),
}


@pytest.mark.parametrize("processor", list(PROCESSORS))
def test_ids_are_new_wherever_they_stand(processor: str) -> None:
    full = word_piece()
    full.post_processor = PROCESSORS[processor]
    full.enable_padding(pad_id=1, pad_token="[PAD]", length=6)
    full.enable_truncation(5)
    trimmed, kept = trim_tokenizer(full.to_str(), np.array([2]))
    new = Tokenizer.from_str(trimmed)
    got = new.encode("profit")
    assert got.tokens == ["[CLS]", "profit", "[SEP]", "[PAD]", "[PAD]", "[PAD]"]
    assert got.ids == [new.token_to_id(token) for token in got.tokens] == [3, 1, 4, 0, 0, 0]
    assert kept[got.ids].tolist() == full.encode("profit").ids
    assert len(new.encode("p p p p p p").ids) == 6, "truncation stays too, here at 5 and a token of padding"


def test_bpe_keeps_what_leads_to_a_token() -> None:
    tokens = ["z", "a", "b", "c", "d", "bc", "ab", "cd", "abc", "abcd", "za"]
    merges = [("c", "d"), ("a", "b"), ("b", "c"), ("ab", "c"), ("z", "a"), ("ab", "cd")]
    full = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    trimmed, kept = trim_tokenizer(full.to_str(), [9])
    assert [tokens[i] for i in kept] == ["z", "a", "b", "c", "d", "ab", "cd", "abcd"]
    model = json.loads(trimmed)["model"]
    assert model["merges"] == [["c", "d"], ["a", "b"], ["ab", "cd"]]
    new = Tokenizer.from_str(trimmed)
    assert new.encode("abcdzabc").tokens == ["abcd", "z", "ab", "c"]
    assert full.encode("abcdzabc").tokens == ["abcd", "z", "abc"]


def test_a_file_of_an_old_version_is_read() -> None:
    """Merges as one string, and no word on what kind of model it is: GPT-2's and RoBERTa's own files."""
    content = json.loads(Tokenizer(models.BPE({"a": 0, "b": 1, "c": 2, "bc": 3, "ab": 4}, [("b", "c"), ("a", "b")])).to_str())
    del content["model"]["type"]
    content["model"]["merges"] = ["b c", "a b"]
    trimmed, kept = trim_tokenizer(json.dumps(content), [4])
    assert kept.tolist() == [0, 1, 2, 4]
    assert Tokenizer.from_str(trimmed).encode("abc").ids == [3, 2]


UNIGRAM = [
    ("<unk>", 0.0),
    ("zzz", -30.0),
    ("X", -3.0),
    ("y", -12.0),
    ("aö", -12.0),
    ("ya", -1.0),
    ("a", -5.0),
    ("XX", -4.0),
    ("XXX", -20.0),
]


def test_unigram_keeps_scores_and_what_an_unknown_character_costs() -> None:
    """ö is no piece: with ``zzz`` gone it would cost 22 in place of 40, and ``ya`` + ö less than ``y`` + ``aö``."""
    full = Tokenizer(models.Unigram(UNIGRAM, unk_id=0, byte_fallback=False))
    trimmed, kept = trim_tokenizer(full.to_str(), [3, 4, 5])
    new = Tokenizer.from_str(trimmed)
    assert kept.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert json.loads(trimmed)["model"]["vocab"] == [list(UNIGRAM[i]) for i in kept]
    assert full.encode("yaö").ids == kept[new.encode("yaö").ids].tolist() == [3, 4]
    assert new.encode("XXXX").tokens == ["X", "X", "X", "X"]


def test_unigrams_unknown_piece_may_stand_anywhere() -> None:
    full = Tokenizer(models.Unigram([("long", -9.0), ("a", -1.0), ("<none>", 0.0)], unk_id=2, byte_fallback=False))
    trimmed, kept = trim_tokenizer(full.to_str(), [1])
    assert json.loads(trimmed)["model"]["unk_id"] == kept.tolist().index(2)
    assert kept[Tokenizer.from_str(trimmed).encode("aö").ids].tolist() == [1, 2]


def test_kept_ids_ascend_whatever_their_order_and_gaps() -> None:
    pieces = [(f"piece {i}", -1.0 - i) for i in range(300)]
    _, kept = trim_tokenizer(Tokenizer(models.Unigram(pieces, unk_id=128, byte_fallback=False)).to_str(), [256, 3, 64, 3])
    assert kept.tolist() == [3, 64, 128, 256, 299]


def test_other_models_are_refused() -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    with pytest.raises(ArtifactError, match=r"is WordLevel, and only WordPiece, BPE, Unigram can be .*; set export\.vocabulary: full in"):
        trim_tokenizer(words.to_str(), [0])


def test_ids_of_another_tokenizer_are_refused() -> None:
    trim_tokenizer(word_piece().to_str(), [16])
    with pytest.raises(ArtifactError, match=r"no tokens with the ids \[17, 30000\]"):
        trim_tokenizer(word_piece().to_str(), [2, 30000, 17])


# What tokenizers that were trained say, of many texts.

SIZE = 1500
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def texts() -> list[str]:
    return [row["text"] for row in starter_rows(900)]


def trained_word_piece() -> Tokenizer:
    words = BertWordPieceTokenizer(lowercase=True)
    words.train_from_iterator(texts(), vocab_size=SIZE, show_progress=False)
    words._tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", words.token_to_id("[SEP]")), ("[CLS]", words.token_to_id("[CLS]"))
    )
    return Tokenizer.from_str(words.to_str())


def trained_byte_level() -> Tokenizer:
    words = ByteLevelBPETokenizer(add_prefix_space=True)
    words.train_from_iterator(texts(), vocab_size=SIZE, special_tokens=SPECIAL, show_progress=False)
    words._tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return Tokenizer.from_str(words.to_str())


def trained_with_suffix() -> Tokenizer:
    words = CharBPETokenizer(unk_token="<unk>", suffix="</w>")
    words.train_from_iterator(texts(), vocab_size=SIZE, special_tokens=["<unk>"], suffix="</w>", show_progress=False)
    return Tokenizer.from_str(words.to_str())


def trained_with_prefix() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="##", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece("##", cleanup=False)
    trainer = trainers.BpeTrainer(vocab_size=SIZE, special_tokens=SPECIAL, continuing_subword_prefix="##", show_progress=False)
    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def trained_with_many_ways() -> Tokenizer:
    """As LLaMA's: every split of a token into two tokens is a merge, ranked by the token; unknown characters are bytes."""
    content = json.loads(trained_with_prefix().to_str())
    whole = dict.fromkeys(token.removeprefix("##") for token in content["model"]["vocab"])
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *BYTES, *(token for token in whole if token not in SPECIAL)])}
    merges = [(t[:at], t[at:]) for t in vocabulary for at in range(1, len(t)) if t[:at] in vocabulary and t[at:] in vocabulary]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def trained_unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(
        texts(), trainers.UnigramTrainer(vocab_size=SIZE, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> $B </s>", [("<s>", 0), ("</s>", 2)])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    return tokenizer


def trained_unigram_of_bytes() -> Tokenizer:
    content = json.loads(trained_unigram().to_str())
    content["model"]["vocab"] += [[byte, -20.0] for byte in BYTES]
    content["model"]["byte_fallback"] = True
    content["added_tokens"][-1]["id"] += 256
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return tokenizer


TRAINED: list[Callable[[], Tokenizer]] = [
    trained_word_piece,
    trained_byte_level,
    trained_with_suffix,
    trained_with_prefix,
    trained_with_many_ways,
    trained_unigram,
    trained_unigram_of_bytes,
]


def drawn(tokenizer: Tokenizer, n: int) -> list[str]:
    """Texts of pieces of its own vocabulary and odd characters in any order, with and without spaces between."""
    draw = random.Random(7)
    pieces = [tokenizer.decode([i], skip_special_tokens=False) for i in range(tokenizer.get_vocab_size())]
    stretches = [
        range(0x20, 0x7F),
        range(0x00, 0x20),
        range(0xA0, 0x250),
        range(0x5D0, 0x6FF),
        range(0x2000, 0x2070),
        range(0x1F300, 0x1F700),
    ]
    made = []
    for _ in range(n):
        share = draw.choice([0.0, 0.0, 0.1, 0.6])
        words = [
            chr(draw.choice(draw.choice(stretches))) if draw.random() < share else draw.choice(pieces) for _ in range(draw.randrange(12))
        ]
        made.append(draw.choice(["", " "]).join(words))
    return made


@pytest.mark.parametrize("make", TRAINED)
def test_texts_of_kept_tokens_are_the_same_and_others_are_spelled(make: Callable[[], Tokenizer]) -> None:
    full = make()
    corpus = texts()[::30]
    used = {i for encoding in full.encode_batch(corpus) for i in encoding.ids}
    trimmed, kept = trim_tokenizer(full.to_str(), used)
    new = Tokenizer.from_str(trimmed)
    assert new.get_vocab() == {token: kept.tolist().index(i) for token, i in full.get_vocab().items() if i in kept}
    assert new.get_vocab_size() == len(kept) < 0.9 * full.get_vocab_size()
    same = spelled = 0
    for text in [*corpus, *texts()[1::30], *ODD, *drawn(full, 4000)]:
        before, after = full.encode(text), new.encode(text)
        if set(before.ids) <= set(kept.tolist()):
            same += 1
            assert kept[after.ids].tolist() == before.ids, text
            assert after.offsets == before.offsets
        else:
            spelled += 1
        assert new.decode(after.ids, skip_special_tokens=False) == full.decode(before.ids, skip_special_tokens=False), text
    assert same > 300, "else the test shows little"
    assert spelled > 300


# The model.


def model_of(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(copy.deepcopy(config), attn_implementation="eager")
    return model.eval()


def logits(model: PreTrainedModel, ids: np.ndarray, pad: int) -> torch.Tensor:
    """The last bit depends on where in memory weights begin: of two loaded models, compare copies."""
    tokens = torch.from_numpy(ids)
    with torch.inference_mode():
        return model(input_ids=tokens, attention_mask=(tokens != pad).long()).logits


def batch(kept: np.ndarray, pad: int) -> np.ndarray:
    """Old ids (8, 12), shorter and shorter ones padded."""
    rng = np.random.default_rng(0)
    ids = rng.choice(kept[kept != pad], (8, 12))
    for row in range(8):
        ids[row, 12 - row :] = pad
    return ids


@pytest.mark.parametrize("name", list(FAMILIES))
def test_each_family_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    model = model_of(FAMILIES[name])
    pad = model.get_input_embeddings().padding_idx  # MPNet's is 1, whatever its configuration says
    kept = np.r_[0:4, np.arange(5, 500, 7)]
    ids = batch(kept, pad)
    expected = logits(model, ids, pad)
    trimmed = trim_embeddings(model, kept)
    assert trimmed.get_input_embeddings().weight.shape[0] == trimmed.config.vocab_size == len(kept)
    assert torch.equal(logits(trimmed, np.searchsorted(kept, ids), pad), expected)
    assert torch.equal(logits(model, ids, pad), expected), "the model that was given is as it was"
    assert model.config.vocab_size == 500
    (tmp_path / "tokenizer").mkdir()
    save_checkpoint(trimmed, tmp_path / "tokenizer", tmp_path / "checkpoint")
    again, _ = load_checkpoint(tmp_path / "checkpoint")
    assert torch.equal(logits(copy.deepcopy(again), np.searchsorted(kept, ids), pad), expected)


def test_a_padding_token_may_move() -> None:
    config = BertConfig(**SHAPE | {"pad_token_id": 7}, bos_token_id=9, eos_token_id=[8, 11, 499], architectures=[])
    model, kept = model_of(config), np.array([2, 7, 9, 11, 12, 400])
    ids = batch(kept, 7)
    trimmed = trim_embeddings(model, kept)
    assert (trimmed.config.pad_token_id, trimmed.config.bos_token_id, trimmed.config.eos_token_id) == (1, 2, [3])
    assert trimmed.get_input_embeddings().padding_idx == 1
    assert trimmed.get_input_embeddings().num_embeddings == 6
    assert torch.equal(logits(trimmed, np.searchsorted(kept, ids), 1), logits(model, ids, 7))
    assert trimmed.get_input_embeddings().weight.requires_grad
    assert (model.config.pad_token_id, model.get_input_embeddings().padding_idx) == (7, 7)


def test_ids_of_tokens_that_are_gone_are_none() -> None:
    trimmed = trim_embeddings(model_of(BertConfig(**SHAPE, bos_token_id=4)), np.array([2, 3]))
    assert trimmed.config.bos_token_id is None
    assert trimmed.config.pad_token_id is None
    assert trimmed.get_input_embeddings().padding_idx is None


@pytest.mark.parametrize(
    ("config", "became"), [(RobertaConfig(**SHAPE | {"pad_token_id": 1}), "1 would become 0"), (FAMILIES["mpnet"], "1 would become 0")]
)
def test_positions_that_are_counted_from_padding_stay(config: PreTrainedConfig, became: str) -> None:
    trim_embeddings(model_of(config), np.array([0, 1, 5]))
    with pytest.raises(ArtifactError, match=rf"counts positions from its padding token, whose id {became}; set export\.vocabulary: full"):
        trim_embeddings(model_of(config), np.array([1, 5]))
    with pytest.raises(ArtifactError, match="1 would become None"):
        trim_embeddings(model_of(config), np.array([0, 5]))


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused() -> None:
    with pytest.raises(ArtifactError, match="a token with the id 500, and the model's embeddings are 500"):
        trim_embeddings(model_of(FAMILIES["bert"]), np.array([0, 500]))


def test_tokenizer_and_model_fit_together(tiny_backbone: Path) -> None:
    definition = (tiny_backbone / "tokenizer.json").read_text()
    full = Tokenizer.from_str(definition)
    corpus = texts()[:40]
    rows = [encoding.ids for encoding in full.encode_batch(corpus)]
    trimmed, kept = trim_tokenizer(definition, {i for row in rows for i in row})
    model = copy.deepcopy(AutoModelForSequenceClassification.from_pretrained(tiny_backbone, attn_implementation="eager").eval())
    small = trim_embeddings(model, kept)
    new = Tokenizer.from_str(trimmed)
    assert small.config.vocab_size == new.get_vocab_size() < 1200
    assert small.config.pad_token_id == new.token_to_id("[PAD]")
    for text, row in zip(corpus, rows, strict=True):
        assert torch.equal(logits(small, np.array([new.encode(text).ids]), -1), logits(model, np.array([row]), -1))
