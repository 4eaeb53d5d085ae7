"""Register: the run with all its evidence, the bundle as a model version, an alias on it. Run twice, nothing changes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finsight.bundle import bundle_digest, read_bundle
from finsight.domain.protocol import in_words
from finsight.errors import ArtifactError, DataError, ParamsError
from finsight.files import read_json, write_json
from finsight.params.register import RegisterParams
from finsight.pipeline.comparison import as_markdown, verdict
from finsight.pipeline.tables import read_numbers
from finsight.pipeline.tracking import BUNDLE_TAG, CHECKPOINT_TAG, REGISTERED, STATE_TAG, TRAINED

if TYPE_CHECKING:
    from finsight.ports import ExperimentTracker, ModelRegistry, ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"
VERDICT_TAG = "verdict"
BUNDLE_ARTIFACT, REPORTS_ARTIFACT, INPUTS_ARTIFACT = "bundle", "reports", "inputs"


Compare = Callable[["ModelVersion"], dict[str, Any]]
"""Compares this model with a version of the registry, as :func:`finsight.pipeline.compare.compare` does."""


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
    names = (
        "ingest.json",
        "validation.json",
        "prepare.json",
        "train.json",
        "metrics.json",
        "slices.json",
        "export.json",
        "report.html",
        "model_card.md",
        "predictions.parquet",
        "plots",
    )
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
    compare: Compare,
    report: Path,
) -> dict[str, Any]:
    """Bring the pipeline's results into the tracker and the registry; return what ``report`` says.

    The run that ``train`` left is completed; where the tracker has none (the checkpoint came from DVC's cache, or the tracker
    was away) it is rebuilt from the files. Every step is looked up by digest before it is taken, so that a killed stage is
    simply run again.

    :param settings: params.yaml flattened to dotted keys.
    :param lineage: tags that say where the result came from.
    :param experiment: name of the DVC experiment that runs, if one does; it makes a version only with ``register.experiments``.
    :param compare: asked about the champion, whose difference the run then carries: metrics ``delta.…``, the verdict, comparison.md.
    """
    stamp = read_bundle(evidence.bundle).protocol
    tags = {**lineage, "protocol": in_words(stamp), "contaminated": ", ".join(stamp["contaminated"]) or "no"}
    digest = bundle_digest(evidence.bundle)
    versions = registry.versions()
    version = next((v for v in versions if v.bundle_digest == digest), None)
    run = version.run if version else tracker.find({BUNDLE_TAG: digest, STATE_TAG: REGISTERED})
    if run is None:
        champion = next((v for v in versions if CHAMPION in v.aliases), None)
        run = _complete_run(tracker, evidence, settings, tags, digest, _compared(champion, compare) if champion else {})
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


def _compared(champion: ModelVersion, compare: Compare) -> dict[str, Any]:
    """The comparison with the champion; only ``failed`` where its run or ours does not tell enough."""
    try:
        return compare(champion)
    except (ArtifactError, DataError, ParamsError) as error:
        return {"failed": f"not compared with version {champion.number}: {error}"}


def _complete_run(
    tracker: ExperimentTracker,
    evidence: Evidence,
    settings: Mapping[str, str],
    tags: Mapping[str, str],
    digest: str,
    compared: Mapping[str, Any],
) -> str:
    checkpoint = str(read_json(evidence.train, "dvc repro train").get("checkpoint_sha256", ""))
    run = tracker.find({CHECKPOINT_TAG: checkpoint, STATE_TAG: TRAINED}) or _rebuild_run(tracker, evidence, settings, checkpoint)
    metrics = read_json(evidence.metrics, "dvc repro evaluate")
    numbers = metrics | {f"calibration_{name}": value for name, value in metrics.get("calibration", {}).items()}
    tracker.log_metrics(run, {f"test_{name}": float(value) for name, value in numbers.items() if isinstance(value, int | float)})
    tags = {**tags, **_log_comparison(tracker, run, compared)}
    tracker.log_files(run, sorted(p for p in evidence.bundle.iterdir()), BUNDLE_ARTIFACT)
    tracker.log_files(run, evidence.reports, REPORTS_ARTIFACT)
    tracker.log_files(run, [path for path in evidence.inputs if path.exists()], INPUTS_ARTIFACT)
    # The tags come last: a run that carries them is complete.
    tracker.finish(run, {**tags, CHECKPOINT_TAG: checkpoint, BUNDLE_TAG: digest, STATE_TAG: REGISTERED})
    return run


def _log_comparison(tracker: ExperimentTracker, run: str, compared: Mapping[str, Any]) -> dict[str, str]:
    """Log what changed against the champion; return the verdict as a tag."""
    if "metrics" not in compared:
        return {VERDICT_TAG: compared["failed"]} if compared else {}
    tracker.log_metrics(run, {f"delta.{name}": row["difference"] for name, row in compared["metrics"].items()})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "comparison.md"
        path.write_text(as_markdown(compared), encoding="utf-8")
        tracker.log_files(run, [path], REPORTS_ARTIFACT)
    return {VERDICT_TAG: verdict(compared)}


def _rebuild_run(tracker: ExperimentTracker, evidence: Evidence, settings: Mapping[str, str], checkpoint: str) -> str:
    """The run that ``train`` would have left; from here on it makes no difference which of them it is."""
    run = tracker.start("train (rebuilt from files)", settings)
    for epoch in read_numbers(evidence.curves):
        tracker.log_metrics(run, epoch, int(epoch["epoch"]))
    tracker.finish(run, {CHECKPOINT_TAG: checkpoint, STATE_TAG: TRAINED})
    return run
