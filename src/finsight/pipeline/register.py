"""Register: the run with all its evidence, the bundle as a model version, an alias on it. Run twice, nothing changes."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finsight.bundle import bundle_digest, read_bundle
from finsight.domain.protocol import in_words
from finsight.errors import ArtifactError
from finsight.files import read_json, write_json
from finsight.params.register import RegisterParams
from finsight.pipeline.tracking import BUNDLE_TAG, CHECKPOINT_TAG, REGISTERED, STATE_TAG, TRAINED

if TYPE_CHECKING:
    from finsight.ports import ExperimentTracker, ModelRegistry, ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"
BUNDLE_ARTIFACT, REPORTS_ARTIFACT, INPUTS_ARTIFACT = "bundle", "reports", "inputs"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the pipeline wrote, by path.

    :param reports: files and folders that are uploaded as they are.
    :param inputs: params.yaml and dvc.lock, likewise.
    """

    bundle: Path
    metrics: Path
    train: Path
    curves: Path
    reports: Sequence[Path]
    inputs: Sequence[Path]


def evidence(bundle: Path, reports: Path) -> Evidence:
    """The files of a finished pipeline under their usual names."""
    names = ("ingest.json", "validation.json", "prepare.json", "train.json", "metrics.json", "export.json", "predictions.parquet", "plots")
    return Evidence(
        bundle,
        reports / "metrics.json",
        reports / "train.json",
        reports / "plots" / "curves.csv",
        [reports / name for name in names],
        [Path("params.yaml"), Path("dvc.yaml"), Path("dvc.lock")],
    )


def register(
    tracker: ExperimentTracker,
    registry: ModelRegistry,
    params: RegisterParams,
    evidence: Evidence,
    settings: Mapping[str, str],
    lineage: Mapping[str, str],
    experiment: str | None,
    report: Path,
) -> dict[str, Any]:
    """Bring the pipeline's results into the tracker and the registry; return what ``report`` says.

    The run that ``train`` left is completed; where the tracker has none (the checkpoint came from DVC's cache, or the tracker
    was away) it is rebuilt from the files. Every step is looked up by digest before it is taken, so that a killed stage is
    simply run again.

    :param settings: params.yaml flattened to dotted keys.
    :param lineage: tags that say where the result came from.
    :param experiment: name of the DVC experiment that runs, if one does; it makes a version only with ``register.experiments``.
    """
    stamp = read_bundle(evidence.bundle).protocol
    tags = {**lineage, "protocol": in_words(stamp), "contaminated": ", ".join(stamp["contaminated"]) or "no"}
    digest = bundle_digest(evidence.bundle)
    versions = registry.versions()
    version = next((v for v in versions if v.bundle_digest == digest), None)
    if version:
        run = version.run
    else:
        run = tracker.find({BUNDLE_TAG: digest, STATE_TAG: REGISTERED}) or _complete_run(tracker, evidence, settings, tags, digest)
    content: dict[str, Any] = {"model": params.model, "version": None, "aliases": [], "run": run, "bundle_sha256": digest}
    if experiment is None or params.experiments:
        version = version or registry.create(run, BUNDLE_ARTIFACT, digest, tags)
        content |= {"version": version.number, "aliases": _set_alias(registry, versions, version)}
    else:
        content["experiment"] = experiment
    write_json(report, content)
    return content


def _set_alias(registry: ModelRegistry, versions: Sequence[ModelVersion], version: ModelVersion) -> list[str]:
    """The first version becomes champion; a later one challenger, unless it is the champion already.

    A missing champion is not replaced: somebody has taken the alias away.
    """
    if CHAMPION in version.aliases:
        return sorted(version.aliases)
    alias = CHALLENGER if any(v.number != version.number for v in versions) else CHAMPION
    if alias not in version.aliases:
        registry.set_alias(alias, version.number)
    return sorted(version.aliases | {alias})


def _complete_run(tracker: ExperimentTracker, evidence: Evidence, settings: Mapping[str, str], tags: Mapping[str, str], digest: str) -> str:
    checkpoint = str(read_json(evidence.train, "dvc repro train").get("checkpoint_sha256", ""))
    run = tracker.find({CHECKPOINT_TAG: checkpoint, STATE_TAG: TRAINED}) or _rebuild_run(tracker, evidence, settings, checkpoint)
    metrics = read_json(evidence.metrics, "dvc repro evaluate")
    numbers = metrics | {f"calibration_{name}": value for name, value in metrics.get("calibration", {}).items()}
    tracker.log_metrics(run, {f"test_{name}": float(value) for name, value in numbers.items() if isinstance(value, int | float)})
    tracker.log_files(run, sorted(p for p in evidence.bundle.iterdir()), BUNDLE_ARTIFACT)
    tracker.log_files(run, evidence.reports, REPORTS_ARTIFACT)
    tracker.log_files(run, [path for path in evidence.inputs if path.exists()], INPUTS_ARTIFACT)
    # The tags come last: a run that carries them is complete.
    tracker.finish(run, {**tags, CHECKPOINT_TAG: checkpoint, BUNDLE_TAG: digest, STATE_TAG: REGISTERED})
    return run


def _rebuild_run(tracker: ExperimentTracker, evidence: Evidence, settings: Mapping[str, str], checkpoint: str) -> str:
    """The run that ``train`` would have left; from here on it makes no difference which of them it is."""
    run = tracker.start("train (rebuilt from files)", settings)
    for epoch in _read_curves(evidence.curves):
        tracker.log_metrics(run, epoch, int(epoch["epoch"]))
    tracker.finish(run, {CHECKPOINT_TAG: checkpoint, STATE_TAG: TRAINED})
    return run


def _read_curves(path: Path) -> list[dict[str, float]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    except (FileNotFoundError, ValueError) as error:
        raise ArtifactError(f"{path}: can't be read ({error}); `dvc repro train` writes it") from None
