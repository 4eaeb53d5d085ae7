"""Register: the run with all its evidence, the bundle as a model version, its provenance, an alias on it. Run twice, nothing changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finsight.bundle import bundle_digest, read_bundle
from finsight.domain import licences
from finsight.errors import ArtifactError, DataError, FinsightError, ParamsError, RefusedError, UnreachableError
from finsight.files import write_json
from finsight.params.register import RegisterParams
from finsight.pipeline import audit, provenance
from finsight.pipeline.evidence import Evidence
from finsight.pipeline.run_record import MODEL_ARTIFACT, Desk, Facts, archived, complete_run, description, prove, restate, version_tags
from finsight.pipeline.tracking import BUNDLE_TAG, REGISTERED, STATE_TAG

if TYPE_CHECKING:
    from finsight.ports import ExperimentTracker, ModelRegistry, ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"


def register(desk: Desk, params: RegisterParams, evidence: Evidence, facts: Facts, report: Path) -> dict[str, Any]:
    """Bring the pipeline's results into the tracker and the registry; return what ``report`` says.

    Where they are away everything is put into the outbox, under the bundle's digest, and ``waits`` says why. What waits there already is
    sent first; ``left`` says what can't be. Every step is looked up by digest before it is taken, so that a killed stage is simply run
    again.

    :raises ParamsError: when params.yaml is no longer what the stages were run with.
    :raises RefusedError: when the tracker refuses who we are; what is registered waits then, too.
    """
    provenance.check_params(evidence)
    digest, left = bundle_digest(evidence.bundle), list[str]()
    try:
        tracker, registry = desk.connect()
        _, left = flush(desk, params, but=digest)
        content = _send(desk, tracker, registry, params, evidence, facts)
        if content["version"] is not None or _waiting_experiment(desk, digest):
            desk.outbox.remove(digest)
    except UnreachableError as error:
        prove(desk, evidence, facts, None, provenance.beside(evidence.bundle))
        # An experiment with the same bundle must not take the place of what is to become a version.
        if facts.experiment is None or _waiting_experiment(desk, digest) is not False:
            desk.outbox.put(digest, _files(evidence), asdict(facts))
        content = {"model": params.model, "version": None, "aliases": [], "run": None, "bundle_sha256": digest, "waits": str(error)}
        if isinstance(error, RefusedError):
            write_json(report, content)
            raise
    write_json(report, content)
    return content | {"left": left}


def flush(desk: Desk, params: RegisterParams, but: str = "") -> tuple[list[dict[str, Any]], list[str]]:
    """Send what waits in the outbox, in its order; what became of each, and why the others were left there.

    :param but: a bundle's digest that is left there.
    :raises UnreachableError: when tracker or registry is away at the beginning; one that goes away later is among the reasons.
    """
    sent, left = [], []
    tracker, registry = desk.connect()
    for name in desk.outbox.names():
        if name == but:
            continue
        try:
            with desk.outbox.opened(name) as (folder, facts):
                evidence = Evidence(folder / "bundle", folder / "reports", folder / "inputs")
                sent.append(_send(desk, tracker, registry, params, evidence, _facts(facts, name)))
            desk.outbox.remove(name)
        except FinsightError as error:  # one that can't be sent must not keep others from being sent
            left.append(f"{name[:12]} waits on: {error}")
    return sent, left


def _facts(content: dict[str, Any], name: str) -> Facts:
    try:
        return Facts(**content)
    except TypeError:
        raise ArtifactError(
            f"{name}: put into the outbox by another finsight; flush it with that one, or register the model again"
        ) from None


def _waiting_experiment(desk: Desk, digest: str) -> bool | None:
    """Whether what waits for a bundle is an experiment's; False where it can't be read, None where nothing waits."""
    if digest not in desk.outbox.names():
        return None
    try:
        with desk.outbox.opened(digest) as (_, facts):
            return facts.get("experiment") is not None
    except (ArtifactError, ParamsError):
        return False


def _files(evidence: Evidence) -> Iterator[tuple[str, Path]]:
    bundle = sorted(p for p in evidence.bundle.rglob("*") if p.is_file())
    yield from ((f"bundle/{p.relative_to(evidence.bundle).as_posix()}", p) for p in bundle)
    yield from evidence.files()


def _send(
    desk: Desk, tracker: ExperimentTracker, registry: ModelRegistry, params: RegisterParams, evidence: Evidence, facts: Facts
) -> dict[str, Any]:
    """The run completed, or rebuilt from the files where the tracker has none; the version, its alias; each unless it is there."""
    digest = bundle_digest(evidence.bundle)
    versions = registry.versions()
    version = next((v for v in versions if v.bundle_digest == digest), None)
    run = version.run if version else tracker.find({BUNDLE_TAG: digest, STATE_TAG: REGISTERED})
    if run is None:
        champion = next((v for v in versions if CHAMPION in v.aliases), None)
        run = complete_run(desk, tracker, evidence, facts, digest, _compared(champion, desk, evidence) if champion else {})
    elif (tags := restate(desk, tracker, evidence, facts, run, version)) and version:
        registry.tag(version.number, tags)
    content: dict[str, Any] = {"model": params.model, "version": None, "aliases": [], "run": run, "bundle_sha256": digest}
    if facts.experiment is None or params.experiments:
        if version is None:
            tags = version_tags(evidence, provenance.beside(evidence.bundle))
            version = registry.create(run, MODEL_ARTIFACT, digest, tags, description(evidence))
        content |= {"version": version.number, "aliases": _set_alias(registry, params, version, evidence, facts)}
    else:
        content["experiment"] = facts.experiment
    return content


def _set_alias(registry: ModelRegistry, params: RegisterParams, version: ModelVersion, evidence: Evidence, facts: Facts) -> list[str]:
    """The first version becomes champion, a later one challenger: once, by the audit log. What another version has had since stays there.

    Of several that are registered at once the lowest is the first. A missing champion is not replaced where there are other versions:
    somebody has taken the alias away. What may not be used commercially is no champion where that is a commercial alias.
    """
    log, there = registry.audit(), registry.versions()
    held = next((v.aliases for v in there if v.number == version.number), frozenset())
    ours = [line for line in log if line["action"] == audit.REGISTERED and line["to"] == str(version.number)]
    if not ours:
        registry.record(audit.line(facts.who, audit.REGISTERED, version.number, f"bundle {version.bundle_digest[:12]}"))
    given = {line["alias"] for line in ours if line["alias"]}
    # A line is written before the alias moves: where it is the alias's last one, somebody may have been stopped between the two.
    last = {line["alias"]: line["to"] for line in log}
    unfinished = any(last[alias] == str(version.number) and (alias != CHAMPION or len(there) == 1) for alias in given - held)
    if CHAMPION in held or archived(version) or (given and not unfinished):
        return sorted(held)
    first = not any(v.number < version.number or CHAMPION in v.aliases for v in there)
    allowed = CHAMPION not in params.commercial_aliases or not licences.in_words(read_bundle(evidence.bundle).licenses)
    alias = CHAMPION if first and allowed else CHALLENGER
    if alias not in held:
        before = next((v.number for v in there if alias in v.aliases), None)
        registry.record(audit.line(facts.who, audit.REGISTERED, version.number, "registered", alias, before))
        registry.set_alias(alias, version.number)
    return sorted(held | {alias})


def _compared(champion: ModelVersion, desk: Desk, evidence: Evidence) -> dict[str, Any]:
    """The comparison with the champion; only ``failed`` where its run or ours does not tell enough."""
    try:
        return desk.compare(champion, evidence)
    except (ArtifactError, DataError, ParamsError) as error:
        return {"failed": f"not compared with version {champion.number}: {error}"}
