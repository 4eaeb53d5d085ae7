"""FinSight: build, prove, export, register and serve financial-sentiment models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finsight.pipeline.predict import Model

__version__ = "0.1.0"


def load(bundle: str | Path, graph: str | None = None) -> Model:
    """A bundle to predict with; it is checked from end to end first, and neither torch nor transformers is imported.

    :param bundle: folder that `make export` wrote, or ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` in the registry.
    :param graph: one of its formats; when None the one that ``FINSIGHT_FORMAT`` names, else the fastest where this host has been
        measured, else its first.
    :raises ArtifactError: when a file of it is missing, or is not what its digest says, or its signature is not what
        ``FINSIGHT_REQUIRE_SIGNATURE`` asks for.
    """
    from finsight.runtime import model

    return model(located(bundle), graph)


def located(bundle: str | Path) -> Path:
    """The folder of a bundle, fetched from the registry where it names a version there; its signature is what the settings ask for."""
    # A small serving image has no more than a folder and asks for no signature: settings and registry are imported when they are needed.
    if str(bundle).startswith("models:/") or os.environ.get("FINSIGHT_REQUIRE_SIGNATURE", "off") != "off":
        from finsight.bootstrap import bundle_folder

        return bundle_folder(Path(bundle))
    return Path(bundle)
