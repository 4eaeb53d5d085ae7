"""``register``: the model registry."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from finsight.params.base import Section


class RegisterParams(Section):
    """Names in MLflow, and whether experiments make versions."""

    experiment: Annotated[str, Field(min_length=1)]
    model: Annotated[str, Field(min_length=1, pattern=r"^[^/:]+$")]
    experiments: bool
    """Whether a run inside ``dvc exp run`` makes a model version and moves aliases too."""
