"""The chain of a provenance statement in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from finsight.domain import machine
from finsight.errors import ArtifactError
from finsight.pipeline.provenance import TRACED, development_signed, resolved, subject


def chain(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What it is and how it is known, link by link: from the bundle to the code, the data and the machine.

    :raises ArtifactError: when the statement, which may be unchecked, has not what it should have.
    """
    try:
        return list(_links(content))
    except (KeyError, TypeError, AttributeError, StopIteration, RuntimeError) as error:
        raise ArtifactError(f"the provenance statement is not as finsight writes it ({error}); `finsight verify` says more") from None


def _links(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    predicate, entries = content["predicate"], resolved(content)
    run, signer = predicate["runDetails"]["metadata"], predicate["finsight_signer"]
    yield "bundle", f"sha256 {subject(content)}"
    key = f"key {signer['key'][:16]}…" + (", a development key" if development_signed(content) else "")
    yield "signed", f"{key}, {run['finishedOn'][:19]}"
    yield "run", run["invocationId"] or "none: the tracker was away"
    for path in reversed(TRACED):
        if path in entries:
            yield path, f"md5 {entries[path]['digest']['dvcMd5']}, made by {entries[path]['annotations'].get('made_by', 'hand')}"
    for name, corpus in entries["corpora"]["annotations"].items():
        yield f"corpus {name}", f"{corpus['rows']} rows, {corpus['license']}"
    yield "corpora", f"as one table: sha256 {entries['corpora']['digest']['sha256'][:16]}…"
    for name, entry in entries.items():
        if name.startswith(("backbone ", "teacher ")):
            yield name, f"sha256 {entry['digest']['sha256'][:16]}…, {entry['annotations']['license']}"
    yield "code", _code(entries)
    yield "environment", machine.in_words(predicate["buildDefinition"]["internalParameters"]["environment"])
    if forbidden := predicate["finsight_non_commercial"]:
        yield "licence", "not for commercial use: " + ", ".join(f"{name} ({licence})" for name, licence in forbidden.items())


def _code(entries: Mapping[str, Any]) -> str:
    source = entries.get("source")
    if source is None:
        return "made outside a git checkout"
    place = source["uri"].removeprefix("git+")
    files = sum(name.startswith(("src/", "stages/")) for name in entries)
    changed = source["annotations"]["changed"]
    state = f", dirty: {', '.join(changed[:3])}{' …' if len(changed) > 3 else ''}" if changed else ", clean"
    return f"git {source['digest']['gitCommit']}{state}, {files} files" + (f", {place}" if place else "")
