"""A fine-tuned model on disk: safetensors, configuration and tokenizer; nothing pickled."""

from __future__ import annotations

import shutil
from pathlib import Path

from transformers import PreTrainedModel

from finsight.errors import ArtifactError
from finsight.files import atomic_folder, full_disk_is_oserror
from finsight.modeling.backbone import load_config, load_model


def save_checkpoint(model: PreTrainedModel, tokenizer: Path, folder: Path) -> None:
    """Write the model and a copy of the tokenizer's files to ``folder``, whole or not at all.

    The configuration keeps no trace of where the backbone lay, so that equal weights give equal files.
    """
    model.config.name_or_path = ""
    with atomic_folder(folder) as partial, full_disk_is_oserror():
        model.to("cpu").save_pretrained(partial, safe_serialization=True)
        for file in sorted(tokenizer.iterdir()):
            shutil.copyfile(file, partial / file.name)


def load_checkpoint(folder: Path) -> tuple[PreTrainedModel, list[str]]:
    """The model of a checkpoint in evaluation mode, and its labels in the order of its outputs.

    :raises ArtifactError: when the folder is missing or no checkpoint.
    """
    if not (folder / "config.json").is_file():
        raise ArtifactError(f"{folder}: no checkpoint there; `dvc repro train` writes it, `dvc pull` fetches it")
    names = load_config(folder).id2label
    labels = [names[i] for i in sorted(names)]
    return load_model(folder, labels).eval(), labels
