"""What the tracker keeps of a model: its run with all the evidence, and the provenance, signed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finsight.bundle import read_bundle
from finsight.domain import licences
from finsight.domain.protocol import in_words
from finsight.errors import ArtifactError
from finsight.files import atomic_folder, folder_digest, sha256
from finsight.pipeline import provenance
from finsight.pipeline.comparison import as_markdown, verdict
from finsight.pipeline.evidence import Evidence
from finsight.pipeline.tables import read_numbers
from finsight.pipeline.tracking import BUNDLE_TAG, CHECKPOINT_TAG, REGISTERED, STATE_TAG, TRAINED

if TYPE_CHECKING:
    from finsight.ports import ExperimentTracker, ModelRegistry, ModelVersion, Outbox, Signer

VERDICT_TAG, LICENCE_TAG, DIRTY_TAG, SIGNATURE_TAG, STATEMENT_TAG = "verdict", "non_commercial", "git.dirty", "signature", "statement"
ARCHIVED_TAG = "archived"
MODEL_ARTIFACT, REPORTS_ARTIFACT, INPUTS_ARTIFACT = "model", "reports", "inputs"
BUNDLE_ARTIFACT = f"{MODEL_ARTIFACT}/artifacts/bundle"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known where the model was made, beside the files; it waits in the outbox with them.

    :param settings: params.yaml flattened to dotted keys.
    :param git: see :func:`finsight.pipeline.provenance.statement`.
    :param experiment: name of the DVC experiment that ran, if one did; it makes a version only with ``register.experiments``.
    :param when: ISO 8601.
    """

    settings: dict[str, str]
    git: dict[str, Any]
    experiment: str | None
    who: str
    when: str


@dataclass(frozen=True, slots=True)
class Desk:
    """Whom register deals with.

    :param connect: opens tracker and registry; raises UnreachableError when they are away.
    :param package: writes what the registry's own loader reads, around a bundle: (bundle, folder to write).
    :param compare: compares the model of some evidence with a version, as :func:`finsight.pipeline.compare.compare` does.
    """

    connect: Callable[[], tuple[ExperimentTracker, ModelRegistry]]
    signer: Signer
    outbox: Outbox
    package: Callable[[Path, Path], None]
    compare: Callable[[ModelVersion, Evidence], dict[str, Any]]


def complete_run(desk: Desk, tracker: ExperimentTracker, evidence: Evidence, facts: Facts, digest: str, compared: Mapping[str, Any]) -> str:
    """Bring everything into the run that ``train`` left, or one that is rebuilt from the files; its id.

    :param compared: the comparison with the champion, whose differences the run then carries: metrics ``delta.…``, the verdict,
        comparison.md.
    """
    checkpoint = str(evidence.report("train").get("checkpoint_sha256", ""))
    run = tracker.find({CHECKPOINT_TAG: checkpoint, STATE_TAG: TRAINED}) or _rebuild_run(tracker, evidence, facts.settings, checkpoint)
    metrics = evidence.report("metrics")
    numbers = metrics | {f"calibration_{name}": value for name, value in metrics.get("calibration", {}).items()}
    tracker.log_metrics(run, {f"test_{name}": float(value) for name, value in numbers.items() if isinstance(value, int | float)})
    judged = _log_comparison(tracker, run, compared)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / MODEL_ARTIFACT
        desk.package(evidence.bundle, made)
        tracker.log_files(run, sorted(made.iterdir()), MODEL_ARTIFACT)
    tags = _prove_in_run(desk, tracker, evidence, facts, run)
    # The tags come last: a run that carries them is complete.
    tracker.finish(run, {**tags, **judged, CHECKPOINT_TAG: checkpoint, BUNDLE_TAG: digest, STATE_TAG: REGISTERED})
    return run


def archived(version: ModelVersion) -> bool:
    """Whether a version was put away."""
    return version.tags.get(ARCHIVED_TAG, "no") != "no"


def prove(desk: Desk, evidence: Evidence, facts: Facts, run: str | None, folder: Path) -> None:
    """Write the provenance beside the bundle, unless one that is as good and holds lies there.

    :param run: that the statement has to name; None where that can't be known.
    """
    try:
        content = provenance.verify(evidence.bundle, folder, desk.signer)
    except ArtifactError:
        pass
    else:
        if run in (None, provenance.run_of(content)) and not _better(desk, facts, content):
            return
    content = provenance.statement(evidence, facts.git, run, desk.signer, facts.when)
    provenance.write_provenance(evidence, content, desk.signer, folder)


def _better(desk: Desk, facts: Facts, content: Mapping[str, Any]) -> bool:
    """Whether ours is worth more than what a statement says: only ours is signed for release; or its tree was dirty and ours is clean,
    and ours is signed as well as it is."""
    ours, theirs = not desk.signer.development, not provenance.development_signed(content)
    cleaner = provenance.not_reproducible(content) and facts.git and not facts.git["changed"]
    return bool((ours and not theirs) or (cleaner and ours >= theirs))


def _prove_in_run(desk: Desk, tracker: ExperimentTracker, evidence: Evidence, facts: Facts, run: str) -> dict[str, str]:
    """Log the evidence, then the provenance, which names each file of it by digest; the version's tags."""
    for artifact, base in ((REPORTS_ARTIFACT, evidence.reports), (INPUTS_ARTIFACT, evidence.inputs)):
        names = sorted({name.split("/")[1] for name, _ in evidence.files() if name.startswith(f"{artifact}/")})
        tracker.log_files(run, [base / name for name in names], artifact)
    folder = provenance.beside(evidence.bundle)
    prove(desk, evidence, facts, run, folder)
    tracker.log_files(run, sorted(folder.iterdir()), provenance.PROVENANCE)
    return version_tags(evidence, folder)


def restate(
    desk: Desk, tracker: ExperimentTracker, evidence: Evidence, facts: Facts, run: str, version: ModelVersion | None
) -> dict[str, str]:
    """Have the provenance of a complete run beside the bundle; tags to set where ours has taken its place, being the better one.

    Whoever signed it: a colleague's key may not be trusted here, and their statement stays what it is.
    """
    folder = provenance.beside(evidence.bundle)
    with tempfile.TemporaryDirectory() as made, suppress(ArtifactError):  # the run may be from before there was provenance, or damaged
        fetched = Path(made)
        tracker.fetch(run, provenance.PROVENANCE, fetched)
        content = provenance.verify(evidence.bundle, fetched, desk.signer, provenance.INTACT)
        # The version's tags are set last: without them, somebody was stopped before that.
        told = version is None or version.tags.get(STATEMENT_TAG) == sha256(fetched / provenance.STATEMENT)
        if provenance.run_of(content) == run and not _better(desk, facts, content):
            if _differ(fetched, folder):
                with atomic_folder(folder) as partial:
                    shutil.copytree(fetched, partial, dirs_exist_ok=True)
            return {} if told else version_tags(evidence, folder)
    tags = _prove_in_run(desk, tracker, evidence, facts, run)
    tracker.finish(run, tags)
    return tags


def _differ(one: Path, other: Path) -> bool:
    return not other.is_dir() or folder_digest(one) != folder_digest(other)


def version_tags(evidence: Evidence, folder: Path) -> dict[str, str]:
    """What people look for in the registry: where it came from, how good it is, what it may be used for."""
    manifest, metrics = read_bundle(evidence.bundle), evidence.report("metrics")
    stamp, content = manifest.protocol, provenance.read_statement(folder)
    locked = evidence.locked()
    tags = {
        "protocol": in_words(stamp),
        "contaminated": ", ".join(stamp["contaminated"]) or "no",
        LICENCE_TAG: licences.in_words(manifest.licenses) or "no",
        "test_accuracy": f"{metrics['accuracy']:.4f}",
        "test_macro_f1": f"{metrics['macro_f1']:.4f}",
        STATEMENT_TAG: sha256(folder / provenance.STATEMENT),
        SIGNATURE_TAG: "development" if provenance.development_signed(content) else "release",
        "signed_by": content["predicate"]["finsight_signer"]["key"],
        **{f"dvc.{path}": locked[path]["md5"] for path in provenance.TRACED if path in locked},
    }
    if code := provenance.source(content):
        tags |= {"git.commit": code["revision"], DIRTY_TAG: str(bool(code["changed"])).lower()}
    return tags


def description(evidence: Evidence) -> str:
    """A version in a sentence or two."""
    metrics, manifest = evidence.report("metrics"), read_bundle(evidence.bundle)
    words = f"{manifest.backbone}: accuracy {metrics['accuracy']:.3f}, macro-F1 {metrics['macro_f1']:.3f} on {metrics['n']} test rows, "
    forbidden = licences.in_words(manifest.licenses)
    return words + in_words(manifest.protocol) + (f". Not for commercial use: {forbidden}" if forbidden else "")


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
    for epoch in read_numbers(evidence.reports / "plots" / "curves.csv"):
        tracker.log_metrics(run, epoch, int(epoch["epoch"]))
    tracker.finish(run, {CHECKPOINT_TAG: checkpoint, STATE_TAG: TRAINED})
    return run
