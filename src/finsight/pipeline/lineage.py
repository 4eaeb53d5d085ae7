"""The chain of a provenance statement in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from finsight.domain import machine
from finsight.pipeline.provenance import development_signed, resolved, subject

# From the end of the pipeline to its beginning; a folder's digest is of its listing.
_MADE = ("models/bundle", "models/checkpoint", "data/prepared", "data/raw/corpus.parquet")


def chain(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What it is and how it is known, link by link: from the bundle to the code, the data and the machine."""
    predicate, entries = content["predicate"], resolved(content)
    run, signer = predicate["runDetails"]["metadata"], predicate["finsight_signer"]
    yield "bundle", f"sha256 {subject(content)}"
    key = f"key {signer['key'][:16]}…" + (", a development key" if development_signed(content) else "")
    yield "signed", f"{key}, {run['finishedOn'][:19]}"
    yield "run", run["invocationId"] or "none: the tracker was away"
    for path in _MADE:
        if path in entries:
            yield path, f"md5 {entries[path]['digest']['dvcMd5']}, made by {entries[path]['annotations'].get('made_by', 'hand')}"
    for name, entry in entries.items():
        if name.startswith(("corpus ", "backbone ")):
            (kind, digest), about = next(iter(entry["digest"].items())), entry["annotations"]
            rows = f", {about['rows']} rows" if "rows" in about else ""
            yield name, f"{kind} {digest[:16]}…{rows}, {about['license']}"
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
