"""Provenance: one statement beside the bundle that says what it was made from, by what, where; and whether it still holds.

The statement is an in-toto Statement v1 with an SLSA Provenance v1 predicate (https://slsa.dev/spec/v1.0/provenance); what SLSA has no
field for stands in fields of ours, as it asks: ``finsight_…``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finsight.bundle import bundle_digest, read_bundle
from finsight.domain.licences import non_commercial
from finsight.errors import ArtifactError, ParamsError
from finsight.files import atomic_folder, read_json, sha256, write_json
from finsight.params.file import dotted, load_yaml, locked_params
from finsight.pipeline.evidence import LOCK, PARAMS, Evidence

if TYPE_CHECKING:
    from finsight.ports import Signer

STATEMENT, STATEMENT_SIGNATURE, BUNDLE_SIGNATURE, PUBLIC_KEY = "statement.json", "statement.sig", "bundle.sig", "key.pub"
PROVENANCE = "provenance"
"""The folder beside a bundle, and in the run's artifacts."""
# What a model is made of, from the beginning of the pipeline to its end; each stands in dvc.lock under the stage that wrote it.
TRACED = ("data/raw/corpus.parquet", "data/prepared", "models/checkpoint", "models/bundle")
_STATEMENT_TYPE, _PREDICATE_TYPE = "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1"
_BUILD_TYPE, _BUILDER = "urn:finsight:dvc-pipeline:1", "urn:finsight:register"


def beside(bundle: Path) -> Path:
    """Where the provenance of a bundle lies."""
    return bundle.resolve().parent / PROVENANCE


def check_params(evidence: Evidence) -> None:
    """:raises ParamsError: when params.yaml is no longer what the stages were run with, by dvc.lock."""
    now, lock = dotted(load_yaml(evidence.inputs / PARAMS)), evidence.inputs / LOCK
    was = locked_params(lock, but="register") if lock.exists() else {}
    for key, value in was.items():
        if key in now and now[key] != value:
            raise ParamsError(f"params.yaml: {key} is {now[key]}, the model was made with {value} (dvc.lock); run all of `dvc repro`")


def statement(evidence: Evidence, git: Mapping[str, Any], run: str | None, signer: Signer, finished: str) -> dict[str, Any]:
    """What there is to say about the bundle of ``evidence``.

    :param git: ``revision``, ``changed``, ``cloned_from``; empty outside a checkout.
    :param run: that of the tracker, if it could be asked.
    :param finished: when, in ISO 8601.
    """
    manifest = read_bundle(evidence.bundle)
    return {
        "_type": _STATEMENT_TYPE,
        "subject": [{"name": "bundle", "digest": {"sha256": bundle_digest(evidence.bundle)}}],
        "predicateType": _PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": _BUILD_TYPE,
                "externalParameters": {"params": load_yaml(evidence.inputs / PARAMS)},
                "internalParameters": {"environment": evidence.report("environment")},
                "resolvedDependencies": [*_sources(git), *_data(evidence, manifest.licenses), *_locked(evidence)],
            },
            "runDetails": {
                "builder": {"id": _BUILDER, "version": {"finsight": version("finsight")}},
                "metadata": {"invocationId": run or "", "finishedOn": finished},
                "byproducts": [{"name": name, "digest": {"sha256": sha256(path)}} for name, path in evidence.files()],
            },
            "finsight_protocol": manifest.protocol,
            "finsight_metrics": manifest.metrics,
            "finsight_non_commercial": non_commercial(manifest.licenses),
            "finsight_signer": {"key": signer.key_id, "development": signer.development},
        },
    }


def _sources(git: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if git:
        about = {"changed": git["changed"]}
        yield {"name": "source", "uri": f"git+{git['cloned_from']}", "digest": {"gitCommit": git["revision"]}, "annotations": about}


def _data(evidence: Evidence, licenses: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    trained, ingested = evidence.report("train"), evidence.report("ingest")
    for kind in ("backbone", "teacher"):
        if found := trained.get(kind):
            yield {"name": f"{kind} {found['name']}", "digest": {"sha256": found["sha256"]}, "annotations": {"license": found["license"]}}
    rows = {name: corpus["rows"] for name, corpus in ingested["corpora"].items()}
    # One table holds all of them, and its digest is what is known.
    about = {name: {"rows": n, "license": licenses.get(f"corpus {name}", "")} for name, n in rows.items()}
    yield {"name": "corpora", "digest": {"sha256": ingested["corpus_sha256"]}, "annotations": about}


def _locked(evidence: Evidence) -> Iterator[dict[str, Any]]:
    for path, found in evidence.locked().items():
        about = {"made_by": found["made"]} if "made" in found else {}
        yield {"name": path, "digest": {"dvcMd5": found["md5"]}, "annotations": about}


def write_provenance(evidence: Evidence, content: Mapping[str, Any], signer: Signer, folder: Path) -> None:
    """Write the statement, sign it and the bundle, into ``folder``: all of it or nothing."""
    with atomic_folder(folder) as made:
        write_json(made / STATEMENT, content)
        signer.sign(made / STATEMENT, made / STATEMENT_SIGNATURE)
        signer.sign(evidence.bundle, made / BUNDLE_SIGNATURE)
        (made / PUBLIC_KEY).write_bytes(signer.public)


def read_statement(folder: Path) -> dict[str, Any]:
    """The statement of a provenance folder, unchecked.

    :raises ArtifactError: when there is none, or it has not the fields of one.
    """
    content = read_json(folder / STATEMENT, "dvc repro register")
    try:
        known = (content["_type"], content["predicateType"]) == (_STATEMENT_TYPE, _PREDICATE_TYPE)
        _ = subject(content), run_of(content), content["predicate"]["finsight_signer"]["key"], development_signed(content)
        _ = not_reproducible(content), [(file["name"], file["digest"]["sha256"]) for file in _byproducts(content)]
    except (KeyError, IndexError, TypeError, AttributeError):
        known = False
    if not known:
        raise ArtifactError(f"{folder / STATEMENT}: no provenance statement as finsight writes it; `dvc repro register` writes it again")
    return content


OURS, KNOWN, INTACT = "ours", "known", "intact"
"""How much a signature has to show: that a key which we trust made it; that, or that a development key beside it did, which says nothing
about who; or only that nothing was changed since whoever it was made it."""


def verify(bundle: Path, folder: Path, signer: Signer, shows: str = KNOWN) -> dict[str, Any]:
    """Recompute every digest of a bundle and its provenance; the statement, when everything holds.

    :param shows: OURS, KNOWN or INTACT.
    :raises ArtifactError: naming the first thing that does not.
    """
    read_bundle(bundle)
    content = read_statement(folder)
    said, found = subject(content), bundle_digest(bundle)
    if said != found:
        raise ArtifactError(f"{folder / STATEMENT}: it is about the bundle {said[:12]}…, {bundle} is {found[:12]}…")
    try:
        public = (folder / PUBLIC_KEY).read_bytes()
    except FileNotFoundError:
        raise ArtifactError(f"{folder / PUBLIC_KEY}: no such file; `dvc repro register` writes it again") from None
    also = public if shows == INTACT or (shows == KNOWN and development_signed(content)) else b""
    keys = {signer.check(folder / STATEMENT, folder / STATEMENT_SIGNATURE, also), signer.check(bundle, folder / BUNDLE_SIGNATURE, also)}
    if {*keys, sha256(folder / PUBLIC_KEY)} != {content["predicate"]["finsight_signer"]["key"]}:
        raise ArtifactError(f"{folder / STATEMENT}: bundle and statement are not signed with the key that it names; don't use this bundle")
    return content


def require(bundle: Path, folder: Path, signer: Signer, release: bool) -> None:
    """Refuse a bundle that is not signed with a trusted key.

    :param signer: one that trusts no development key where ``release`` is asked for: what a statement says of its key is its signer's word.
    :param release: whether a development key does not count.
    :raises ArtifactError: when it is refused.
    """
    if development_signed(read_statement(folder)) and release:
        raise ArtifactError(
            f"{bundle}: signed with a development key, and FINSIGHT_REQUIRE_SIGNATURE is release; register it with FINSIGHT_SIGNING_KEY set"
        )
    verify(bundle, folder, signer, OURS)


def verify_evidence(content: Mapping[str, Any], folder: Path) -> int:
    """Recompute the digests of reports and inputs, as they lie in a run's artifacts; how many there are.

    :raises ArtifactError: naming the first that differs or is missing.
    """
    files = _byproducts(content)
    for file in files:
        path = folder / file["name"]
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ArtifactError(f"{file['name']}: the statement names a file outside the run")
        if not path.is_file():
            raise ArtifactError(f"{file['name']}: the statement names it, the run has it no more")
        if sha256(path) != file["digest"]["sha256"]:
            raise ArtifactError(f"{file['name']}: SHA-256 is {sha256(path)[:12]}…, the statement says {file['digest']['sha256'][:12]}…")
    return len(files)


def subject(content: Mapping[str, Any]) -> str:
    """The digest of the bundle that a statement is about."""
    return str(content["subject"][0]["digest"]["sha256"])


def run_of(content: Mapping[str, Any]) -> str:
    """The run that a statement names; empty where the tracker was away."""
    return str(content["predicate"]["runDetails"]["metadata"]["invocationId"])


def _byproducts(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list(content["predicate"]["runDetails"]["byproducts"])


def source(content: Mapping[str, Any]) -> dict[str, Any]:
    """``revision`` and what was ``changed``, of the code that a statement is about; empty outside git."""
    found = resolved(content).get("source")
    return {"revision": found["digest"]["gitCommit"], "changed": found["annotations"]["changed"]} if found else {}


def resolved(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What the bundle was made from: name → its entry in the statement."""
    return {entry["name"]: entry for entry in content["predicate"]["buildDefinition"]["resolvedDependencies"]}


def development_signed(content: Mapping[str, Any]) -> bool:
    """Whether the statement says that it was signed with a development key."""
    return bool(content["predicate"]["finsight_signer"]["development"])


def not_reproducible(content: Mapping[str, Any]) -> str | None:
    """Why what a statement is about can't be made again; None when it can."""
    code = source(content)
    if not code:
        return "it was made outside a git checkout, so no revision of the code is known"
    if changed := code["changed"]:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        return f"it was made from a dirty tree: {', '.join(changed[:3])}{more} differed from revision {code['revision'][:12]}"
    return None
