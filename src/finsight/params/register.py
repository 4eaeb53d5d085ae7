"""``register``: the model registry."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from finsight.params.base import Section


class RegisterParams(Section):
    """Names in MLflow, and whether experiments make versions."""

    experiment: Annotated[str, Field(pattern=r"^[\w .-]+$")]
    model: Annotated[str, Field(pattern=r"^[\w .-]+$")]
    experiments: bool
    """Whether a run inside ``dvc exp run`` makes a model version and moves aliases too."""
    commercial_aliases: list[Annotated[str, Field(pattern=r"^[A-Za-z][\w-]*$")]]
    """Aliases that no model may get whose corpora or backbone are licensed for non-commercial use alone."""
