"""A smaller vocabulary: the tokens that texts use, and a fallback from which every other text is still made up.

What a tokenizer says of a text all of whose tokens are kept stays the same, for each kind of model for another reason:

- WordPiece takes the longest token that fits, from left to right. Where that one is kept, it is the longest of the kept ones too.
- BPE joins, again and again, the pair whose merge stands first in the list. No merge of a text reaches across the border of two of its
  final tokens, so each merge made belongs to the way in which a kept token comes about, and is kept with its parts. At each step the
  first of all merges that apply is a kept one then, and so the first of the kept.
- Unigram takes the path of the highest sum of scores, and of equals the one that it meets first. The best path is kept and no new one
  comes in: an unknown character costs 10 more than the least likely piece, which is kept for that.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from finsight.errors import ArtifactError

KINDS = ("WordPiece", "BPE", "Unigram")  # models of tokenizers that can be trimmed
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def trim_tokenizer(definition: str, used: Collection[int]) -> tuple[str, NDArray[np.int64]]:
    """The tokenizer with the tokens that ``used`` names and a fallback, and the old id of each of its tokens.

    The fallback is every token of one character (of one byte, where bytes are what the tokenizer is made of), the added and special
    tokens, and whatever leads to a used token. Texts of which all tokens are used get the same tokens; in others a token that is gone
    becomes shorter ones, or [UNK] for a character that was in the vocabulary as a part of longer tokens only. WordPiece's [UNK] of a
    word with such a character may become pieces; vocabularies that were trained by the libraries have none.

    :param definition: the content of ``tokenizer.json``.
    :param used: ids of whole texts, not cut to a length: where a word is cut, its first tokens depend on the ones that were lost.
    :return: the content of the trimmed ``tokenizer.json``, and the kept ids (n,) in ascending order: the new id is the index.
    :raises ArtifactError: for another kind of model, or ids that are no tokens.
    """
    content = json.loads(Tokenizer.from_str(definition).to_str())  # in today's format, whichever version wrote it
    model = content["model"]
    if model["type"] not in KINDS:
        raise ArtifactError(
            f"tokenizer.json: its model is {model['type']}, and only {', '.join(KINDS)} can be trimmed; "
            "set export.vocabulary: full in params.yaml"
        )
    tokens = _tokens(model)
    wanted = {*(int(i) for i in used), *(place[key] for place, key in _places(content))}
    if unknown := sorted(wanted - tokens.keys() - {token["id"] for token in content["added_tokens"]}):
        raise ArtifactError(f"tokenizer.json: has no tokens with the ids {unknown[:5]}; were they made with another tokenizer?")
    wanted |= _fallback(model, tokens)
    if model["type"] == "BPE":
        wanted = _with_parts(wanted, model)
    kept = np.array(sorted(wanted), np.int64)
    _renumber(content, {old: new for new, old in enumerate(kept.tolist())})
    return Tokenizer.from_str(json.dumps(content)).to_str(), kept


def trim_embeddings(model: PreTrainedModel, kept: NDArray[np.int64]) -> PreTrainedModel:
    """A copy of the model whose token embeddings are the rows ``kept``, so that new ids give the logits that the old ones gave.

    Ids in the configuration become new ones, or None where their token is not kept. The given model stays as it is.

    :param kept: old ids (n,) in ascending order, as ``trim_tokenizer`` returns them.
    :raises ArtifactError: when the model has fewer embeddings, or counts positions from a padding token whose id would change.
    """
    model = copy.deepcopy(model)
    new = {old: i for i, old in enumerate(kept.tolist())}
    table = model.get_input_embeddings()
    if kept[-1] >= table.num_embeddings:
        raise ArtifactError(
            f"tokenizer.json: has a token with the id {kept[-1]}, and the model's embeddings are {table.num_embeddings}; "
            "take the tokenizer of this model"
        )
    # RoBERTa and its kin number positions from the padding token's id on, and MPNet has that id in its code: a new one would be lost
    # when the model is loaded again.
    counted = {module.padding_idx for module in model.modules() if module is not table and getattr(module, "padding_idx", None) is not None}
    if moved := [old for old in counted if new.get(old) != old]:
        raise ArtifactError(
            f"{type(model).__name__}: counts positions from its padding token, whose id {moved[0]} would become {new.get(moved[0])}; "
            "set export.vocabulary: full in params.yaml"
        )
    rows = table.weight.detach()[torch.from_numpy(kept).to(table.weight.device)]  # (n, d)
    table.weight = torch.nn.Parameter(rows, requires_grad=table.weight.requires_grad)
    table.num_embeddings, table.padding_idx = len(kept), new.get(table.padding_idx)
    model.config.vocab_size = len(kept)
    for name, old in model.config.to_dict().items():
        if name.endswith("_token_id"):
            setattr(model.config, name, [new[i] for i in old if i in new] if isinstance(old, list) else new.get(old))
    return model


def _tokens(model: Mapping[str, Any]) -> dict[int, str]:
    if model["type"] == "Unigram":
        return {i: piece for i, (piece, _) in enumerate(model["vocab"])}
    return {i: token for token, i in model["vocab"].items()}


def _places(content: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Where ids stand outside the vocabulary: ``place[key]`` is one."""
    yield from ((token, "id") for token in content["added_tokens"])
    if content["padding"]:
        yield content["padding"], "pad_id"
    if content["model"].get("unk_id") is not None:
        yield content["model"], "unk_id"
    processor = content["post_processor"] or {}
    for part in processor.get("processors", [processor]):
        yield from ((part[end], 1) for end in ("cls", "sep") if end in part)  # [token, id]
        for special in part.get("special_tokens", {}).values():
            yield from ((special["ids"], at) for at in range(len(special["ids"])))


def _fallback(model: Mapping[str, Any], tokens: Mapping[int, str]) -> set[int]:
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    fallback = {
        i
        for i, token in tokens.items()
        if len(token.removeprefix(prefix).removesuffix(suffix)) == 1
        or token == model.get("unk_token")
        or (model.get("byte_fallback") and _BYTE.fullmatch(token))
    }
    if model["type"] == "Unigram":
        fallback.add(min(tokens, key=lambda i: model["vocab"][i][1]))
    return fallback


def _with_parts(wanted: Collection[int], model: Mapping[str, Any]) -> set[int]:
    """The ids and those of all tokens from which a merge leads to one of them.

    Where several merges give a token, texts come to it by one of them only; the parts of the others cost rows and change nothing.
    """
    ids = model["vocab"]
    parts: dict[int, list[int]] = {}
    for left, right in model["merges"]:
        parts.setdefault(ids[_joined(left, right, model)], []).extend((ids[left], ids[right]))
    reached, todo = set(wanted), list(wanted)
    while todo:
        new = set(parts.get(todo.pop(), ())) - reached
        reached |= new
        todo += new
    return reached


def _joined(left: str, right: str, model: Mapping[str, Any]) -> str:
    return left + right[len(model["continuing_subword_prefix"] or "") :]


def _renumber(content: Mapping[str, Any], new: Mapping[int, int]) -> None:
    """Leave only the tokens that ``new`` has, with their new ids wherever ids stand."""
    for place, key in _places(content):
        place[key] = new[place[key]]
    model = content["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [entry for i, entry in enumerate(model["vocab"]) if i in new]
    else:
        model["vocab"] = {token: new[i] for token, i in model["vocab"].items() if i in new}
    if model["type"] == "BPE":
        kept = model["vocab"].keys()
        model["merges"] = [[left, right] for left, right in model["merges"] if {left, right, _joined(left, right, model)} <= kept]
