"""A pretrained encoder and its tokenizer, from a folder whose content has been verified."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils import logging

from finsight.errors import ArtifactError

# What the libraries raise on a folder that is no model, or a damaged one.
UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, SafetensorError, StrictDataclassError)


# What families call the probabilities of dropout in their configurations.
_DROPOUT = re.compile(r"(?:^|_)dropout(?:_prob)?$|^attn_pdrop$")


def load_model(
    folder: Path, labels: Sequence[str], attention: str | None = "eager", new_head: bool = False, dropout: float | None = None
) -> PreTrainedModel:
    """A sequence classifier whose outputs are ``labels`` in their order.

    Only safetensors are read, and no code of the folder is run.

    :param new_head: draw the head from torch's seed even where the folder holds one: a backbone that was fine-tuned before
        may have its labels in another order.
    :param dropout: in place of the folder's own, everywhere; None leaves them.
    :param attention: transformers' name of the attention implementation. Eager is the fastest on a CPU in training (SDPA
        falls back to a slow path under attention dropout) and the one the ONNX exporter traces best. None: the fastest that the
        model has; MPNet and DeBERTa have no SDPA.
    :raises ArtifactError: when the folder is no such model.
    """
    model = _load(AutoModelForSequenceClassification, folder, attention, dropout, labels)
    for name, module in model.named_children():
        if new_head and name != model.base_model_prefix:
            for parameter in module.parameters():
                parameter._is_hf_initialized = False  # transformers leaves alone what it has loaded
            module.apply(model._init_weights)
    return model


def load_masked(folder: Path, attention: str | None = "eager", dropout: float | None = None) -> PreTrainedModel:
    """A masked language model; what the folder does not hold of its head is drawn from torch's seed, words are told by their embeddings.

    Parameters and errors are those of :func:`load_model`.
    """
    return _load(AutoModelForMaskedLM, folder, attention, dropout)


def has_masked(folder: Path) -> bool:
    """Whether transformers has a masked language model of a folder's kind.

    :raises ArtifactError: when the folder has no configuration.
    """
    return load_config(folder).model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def _load(
    kind: type[AutoModelForSequenceClassification | AutoModelForMaskedLM],
    folder: Path,
    attention: str | None,
    dropout: float | None,
    labels: Sequence[str] = (),
) -> PreTrainedModel:
    """A model whose encoder is that of the folder."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if labels:
            config.id2label = dict(enumerate(labels))
            config.label2id = {label: i for i, label in enumerate(labels)}
        for name in [] if dropout is None else [key for key in config.to_dict() if _DROPOUT.search(key)]:
            setattr(config, name, dropout)
        model, told = kind.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            attn_implementation=attention,
            dtype="float32",
            output_loading_info=True,
        )
    except UNREADABLE as error:
        raise ArtifactError(f"{folder}: not a transformers model in safetensors: {_one_line(error)}") from None
    lost = sorted({*told["missing_keys"], *(key for key, *_ in told["mismatched_keys"])})
    if lost := [key for key in lost if key.startswith(f"{model.base_model_prefix}.") and "pooler" not in key]:
        raise ArtifactError(f"{folder}: its weights are not those of its config.json: {lost[0]} and {len(lost) - 1} more don't fit")
    loaded: PreTrainedModel = model
    return loaded


def load_config(folder: Path) -> PreTrainedConfig:
    """The configuration of a folder.

    :raises ArtifactError: when there is none.
    """
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except UNREADABLE as error:
        raise ArtifactError(f"{folder}/config.json: {_one_line(error)}") from None


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a folder.

    :raises ArtifactError: when there is none.
    """
    try:
        tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except UNREADABLE as error:
        raise ArtifactError(f"{folder}: holds no fast tokenizer (tokenizer.json): {_one_line(error)}") from None
    if tokenizer.pad_token_id is None:
        raise ArtifactError(f"{folder}: its tokenizer has no padding token; name one in its tokenizer_config.json")
    return tokenizer


def longest_text(folder: Path, tokenizer: PreTrainedTokenizerFast) -> int:
    """The most tokens that a backbone has positions for."""
    config = load_config(folder)
    return min(int(tokenizer.model_max_length), int(getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
