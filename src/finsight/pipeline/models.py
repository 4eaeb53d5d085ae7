"""Changing the registry: which version an alias points to, what is put away or removed. Each change leaves an audit line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finsight.bundle import bundle_digest, read_bundle
from finsight.domain.aliases import assignable
from finsight.errors import ArtifactError, DataError, FinsightError, GateError
from finsight.pipeline import audit
from finsight.pipeline.comparison import verdict
from finsight.pipeline.provenance import PROVENANCE
from finsight.pipeline.register import CHAMPION
from finsight.pipeline.run_record import ARCHIVED_TAG, BUNDLE_ARTIFACT, DIRTY_TAG, LICENCE_TAG, SIGNATURE_TAG, archived

if TYPE_CHECKING:
    from finsight.ports import ExperimentTracker, ModelRegistry, ModelVersion

Judge = Callable[["ModelVersion", "ModelVersion"], tuple[dict[str, Any], list[str]]]
"""Compares the version that holds an alias with another, on rows that neither has learnt from; and what keeps that from passing."""


def find(versions: Sequence[ModelVersion], name: str) -> ModelVersion:
    """A version by its number or by an alias.

    :raises DataError: when there is none.
    """
    found = next((v for v in versions if name == str(v.number)), None) or next((v for v in versions if name in v.aliases), None)
    if found is None:
        there = ", ".join(" ".join([str(v.number), *sorted(v.aliases)]) for v in versions) or "none"
        raise DataError(f"{name}: no such version; there: {there}")
    return found


def check_digest(version: ModelVersion) -> str:
    """The digest of a version's bundle.

    :raises DataError: when it is none: whoever can tag a version can write there what they like.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", version.bundle_digest):
        raise DataError(
            f"version {version.number} was not registered by finsight: it has no digest of a bundle; register it by `dvc repro`"
        )
    return version.bundle_digest


def download(tracker: ExperimentTracker, version: ModelVersion, into: Path) -> None:
    """The bundle of a version, checked, and its provenance beside it, as ``into/bundle`` and ``into/provenance``.

    :raises ArtifactError: when the run has it no more, or what it has is not what was registered.
    """
    check_digest(version)
    for name, artifact in (("bundle", BUNDLE_ARTIFACT), (PROVENANCE, PROVENANCE)):
        (into / name).mkdir()
        tracker.fetch(version.run, artifact, into / name)
    read_bundle(into / "bundle")
    if (found := bundle_digest(into / "bundle")) != version.bundle_digest:
        raise ArtifactError(f"version {version.number}: its run has the bundle {found[:12]}…, registered was {version.bundle_digest[:12]}…")


def promote(
    registry: ModelRegistry, name: str, alias: str, judge: Judge, commercial: Sequence[str], who: str, why: str, force: bool = False
) -> str:
    """Let an alias point to a version that passes the gates against the one that holds it now; what to tell.

    :param commercial: aliases that no model gets whose corpora or backbone are licensed for non-commercial use alone, forced or not.
    :param why: the user's reason; the verdict is added to it.
    :param force: whether it is promoted even where a gate fails, or where nothing can be compared; the audit line says so.
    :raises GateError: when a gate fails.
    """
    if not assignable(alias):
        raise DataError(
            f"--alias: got {alias!r}, expected up to 64 letters, digits, - or _, a letter first; MLflow keeps latest, v1, v2, … to itself"
        )
    versions = registry.versions()
    version = find(versions, name)
    holder = next((v for v in versions if alias in v.aliases), None)
    if holder == version:
        return f"version {version.number} is {alias} already; nothing was changed"
    _fit(version, alias, commercial)
    judged = _judged(judge, holder, version, alias, force) if holder else f"there was no {alias}"
    reason = "; ".join(filter(None, [why, judged]))
    # The line comes first, here and below: a change that nobody wrote down is worse than a line about one that failed.
    registry.record(audit.line(who, audit.PROMOTED, version.number, reason, alias, holder.number if holder else None))
    registry.set_alias(alias, version.number)
    return f"version {version.number} is {alias} now{f', instead of {holder.number}' if holder else ''}: {judged}"


def _fit(version: ModelVersion, alias: str, commercial: Sequence[str]) -> None:
    if archived(version):
        raise DataError(f"version {version.number} is archived; `finsight models archive --undo {version.number}` brings it back")
    forbidden = version.tags.get(LICENCE_TAG, "it does not say what it was made from")
    if alias in commercial and forbidden != "no":
        raise GateError(
            f"version {version.number} is not for commercial use, which {alias} is (register.commercial_aliases): {forbidden}; "
            "train without what forbids it"
        )


def _judged(judge: Judge, holder: ModelVersion, version: ModelVersion, alias: str, force: bool) -> str:
    """The verdict in words.

    :raises GateError: when a gate fails, unless it is forced.
    """
    try:
        compared, failed = judge(holder, version)
    except FinsightError as error:
        if not force:
            raise GateError(
                f"version {version.number} can't be compared with version {holder.number}, which is {alias}: {error}; "
                "`--force --why …` promotes it all the same"
            ) from None
        return f"forced: not compared: {error}"
    if failed and not force:
        raise GateError(
            f"version {version.number} is not promoted over version {holder.number}: {'; '.join(failed)}; "
            "`--force --why …` promotes it all the same, and the audit log says so"
        )
    return f"forced over {'; '.join(failed)}: {verdict(compared)}" if failed else verdict(compared)


def rollback(registry: ModelRegistry, alias: str, commercial: Sequence[str], who: str, why: str) -> str:
    """Let an alias point to the version that it pointed to before; what to tell.

    Where it was moved without us since, it goes back to the version that we know of.

    :raises DataError: when there was none before, or all of them are gone.
    """
    versions = {v.number: v for v in registry.versions()}
    now = next((v.number for v in versions.values() if alias in v.aliases), None)
    held = audit.holders(registry.audit(), alias, now)
    before = next((number for number in reversed(held) if number in versions), None)
    if before is None:
        gone = f" ({', '.join(map(str, held))}: deleted)" if held else ""
        raise DataError(f"{alias}: the audit log knows no version before {now or 'today'} that there is still{gone}; promote one")
    _fit(versions[before], alias, commercial)
    registry.record(audit.line(who, audit.ROLLED_BACK, before, why, alias, now))
    registry.set_alias(alias, before)
    return f"version {before} is {alias} again{f', instead of {now}' if now else ''}"


def archive(registry: ModelRegistry, name: str, who: str, why: str, undo: bool = False) -> str:
    """Put a version away, so that it is neither listed nor promoted; or bring it back.

    :raises DataError: when an alias holds it.
    """
    version = find(registry.versions(), name)
    if not undo:
        _free(version, "archived")
    registry.record(audit.line(who, audit.RESTORED if undo else audit.ARCHIVED, version.number, why))
    registry.tag(version.number, {ARCHIVED_TAG: "no" if undo else audit.now()})
    return f"version {version.number} is {'back' if undo else 'archived'}"


def delete(registry: ModelRegistry, name: str, who: str, why: str) -> str:
    """Remove a version for good; its run, with all files, stays in the tracker.

    :raises DataError: when an alias holds it.
    """
    version = find(registry.versions(), name)
    _free(version, "deleted")
    registry.record(audit.line(who, audit.DELETED, version.number, "; ".join(filter(None, [why, f"bundle {version.bundle_digest[:12]}"]))))
    registry.delete(version.number)
    return f"version {version.number} is deleted; its run {version.run} stays"


def _free(version: ModelVersion, what: str) -> None:
    if version.aliases:
        held = ", ".join(sorted(version.aliases))
        instead = "`finsight models rollback` or promote another" if CHAMPION in version.aliases else "promote another to it"
        raise DataError(f"version {version.number} is {held}, so it is not {what}; {instead} first")


def facts(version: ModelVersion) -> dict[str, str]:
    """What a list says of a version; blank where it has no such tag."""
    tag = version.tags.get
    dirty = " dirty" if tag(DIRTY_TAG) == "true" else ""
    return {
        "created": version.created,
        "accuracy": tag("test_accuracy", ""),
        "macro_f1": tag("test_macro_f1", ""),
        "signature": tag(SIGNATURE_TAG, "none"),
        "commit": tag("git.commit", "")[:8] + dirty,
    }


def about(version: ModelVersion, log: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """All that the registry says of a version, and its lines of the audit ``log``."""
    return {
        "version": version.number,
        "aliases": ", ".join(sorted(version.aliases)) or "none",
        "created": version.created,
        "description": version.description,
        "bundle": version.bundle_digest,
        "run": version.run,
        **dict(sorted(version.tags.items())),
        "log": [dict(line) for line in log if str(version.number) in (line.get("from"), line.get("to"))],
    }
