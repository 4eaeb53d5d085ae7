"""What a finished pipeline has to show for its bundle: the reports of its stages, and what it was run with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finsight.files import read_json
from finsight.params.file import locked_files

REPORTS = (
    "ingest.json",
    "validation.json",
    "prepare.json",
    "train.json",
    "environment.json",
    "metrics.json",
    "slices.json",
    "export.json",
    "report.html",
    "model_card.md",
    "predictions.parquet",
    "plots",
)
PARAMS, LOCK = "params.yaml", "dvc.lock"
INPUTS = (PARAMS, "dvc.yaml", LOCK)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Three folders.

    :param reports: with REPORTS.
    :param inputs: with INPUTS, of those that there are.
    """

    bundle: Path
    reports: Path
    inputs: Path

    def report(self, name: str) -> dict[str, Any]:
        """A stage's report.

        :raises ArtifactError: when it is missing or no JSON.
        """
        return read_json(self.reports / f"{name}.json", "dvc repro")

    def locked(self) -> dict[str, dict[str, str]]:
        """What dvc.lock says upstream of ``register``, as :func:`finsight.params.file.locked_files`; nothing without one."""
        lock = self.inputs / LOCK
        return locked_files(lock, but="register") if lock.exists() else {}

    def files(self) -> Iterator[tuple[str, Path]]:
        """Every file but the bundle's, by its name in the run's artifacts (``reports/metrics.json``), sorted."""
        for folder, base, names in (("inputs", self.inputs, INPUTS), ("reports", self.reports, REPORTS)):
            for name in sorted(names):
                path = base / name
                found = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path] if path.exists() else []
                yield from ((f"{folder}/{p.relative_to(base).as_posix()}", p) for p in found)
