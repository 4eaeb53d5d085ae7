"""What a bundle's predictions are held against, from the reports of the run that made it: a bundle keeps no counts of its training rows."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from finsight.domain.reference import Reference, counted
from finsight.errors import FinsightError
from finsight.files import read_json
from finsight.settings import project_root

if TYPE_CHECKING:
    from finsight.ports import ModelVersion


def reference(digest: str, labels: Sequence[str], version: ModelVersion | None) -> Reference | None:
    """Of a bundle, from the reports in its version's run, or those of this clone; None where they are not there, or another bundle's.

    :param digest: of the bundle.
    :param labels: in its order.
    :param version: None for a folder.
    """
    with ExitStack() as made:
        try:
            reports = Path(made.enter_context(tempfile.TemporaryDirectory())) if version else project_root() / "reports"
            if version:
                _fetch(version.run, reports)
            if read_json(reports / "export.json", "dvc repro").get("bundle_sha256") != digest:
                return None
            return _read(reports, labels)
        except (FinsightError, OSError, KeyError, TypeError, AttributeError, ValueError):  # a model is served all the same
            return None


def _fetch(run: str, into: Path) -> None:
    from finsight.bootstrap.pipeline import load_params, tracker
    from finsight.pipeline.run_record import REPORTS_ARTIFACT

    tracker(load_params()).fetch(run, REPORTS_ARTIFACT, into)


def _read(reports: Path, labels: Sequence[str]) -> Reference:
    from finsight.pipeline.predictions import read_predictions

    rows = read_json(reports / "prepare.json", "dvc repro")["splits"]["train"]["labels"]
    found = counted(read_predictions(reports / "predictions.parquet").probs)
    return Reference([int(rows.get(label, 0)) for label in labels], found.sum(axis=0).tolist())
