"""FinSight: build, prove, export, register and serve financial-sentiment models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finsight.pipeline.predict import Model

__version__ = "0.1.0"


def load(bundle: str | Path, graph: str | None = None) -> Model:
    """A bundle to predict with; it is checked from end to end first, and neither torch nor transformers is imported.

    :param bundle: folder that `make export` wrote.
    :param graph: one of its formats; when None the one that ``FINSIGHT_FORMAT`` names, else the fastest where this host has been
        measured, else its first.
    :raises ArtifactError: when a file of it is missing, or is not what its digest says.
    """
    from finsight.runtime import model

    return model(Path(bundle), graph)
