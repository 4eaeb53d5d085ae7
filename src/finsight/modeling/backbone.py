"""A pretrained encoder and its tokenizer, from a folder whose content has been verified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

from finsight.errors import ArtifactError


@dataclass(frozen=True, slots=True)
class Backbone:
    """Where an encoder lies, and what it is: its name in params.yaml, the SHA-256 of its weights, its licence."""

    name: str
    folder: Path
    digest: str
    license: str


def load_model(folder: Path, labels: Sequence[str], attention: str = "eager") -> PreTrainedModel:
    """A sequence classifier whose outputs are ``labels`` in their order; a head the folder lacks is drawn from torch's seed.

    Only safetensors are read, and no code of the folder is run.

    :param attention: transformers' name of the attention implementation. Eager is the fastest on a CPU in training (SDPA
        falls back to a slow path under attention dropout) and the one the ONNX exporter traces best.
    :raises ArtifactError: when the folder is no such model.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    names = {str(i): label for i, label in enumerate(labels)}
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        config.id2label = {int(i): label for i, label in names.items()}
        config.label2id = {label: int(i) for i, label in names.items()}
        model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            attn_implementation=attention,
            dtype="float32",
        )
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder}: not a transformers model in safetensors: {_one_line(error)}") from None
    return model


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a folder.

    :raises ArtifactError: when there is none.
    """
    try:
        tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(f"{folder}: holds no fast tokenizer (tokenizer.json): {_one_line(error)}") from None
    return tokenizer


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
