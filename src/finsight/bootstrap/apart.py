"""The work that the service has done in processes of their own: see :func:`finsight.adapters.apart.call`."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from finsight.bootstrap.pipeline import load_params
from finsight.bootstrap.provenance import statement, verified_version
from finsight.bootstrap.versions import judge, model_version, side
from finsight.environment import quiet
from finsight.errors import ArtifactError, FinsightError


def compare(base: list[str], new: list[str]) -> dict[str, Any]:
    """What `finsight compare` says, and which gates fail.

    :param base: what the answer calls it, and its name for :func:`finsight.bootstrap.side`.
    """
    from finsight.pipeline import compare as comparing
    from finsight.pipeline.comparison import verdict
    from finsight.pipeline.gating import failures

    params = load_params()
    old, young = (replace(side(params, name), name=called) for called, name in (base, new))
    found = comparing.compare(old, young, params.polarity, params.evaluate)
    return found | {"gates": failures(found, young, params.gates), "sentence": verdict(found)}


def gate(holder: str, version: str) -> dict[str, Any]:
    """The comparison of two versions by their numbers on rows that neither has learnt from, and which gates fail."""
    params = load_params()
    found, failed = judge(params)(model_version(params, holder), model_version(params, version))
    return {"comparison": found, "failures": failed}


def trace(version: str) -> dict[str, Any]:
    """The statement of a version, its chain in words, and whether all digests and signatures hold.

    :raises ArtifactError: when it has no statement that can be read.
    """
    from finsight.pipeline.lineage import chain
    from finsight.pipeline.provenance import development_signed

    with tempfile.TemporaryDirectory() as made:
        try:
            content, files = verified_version(version, Path(made))
            failure = None
        except ArtifactError as error:
            content, files, failure = statement(version), 0, str(error).replace(f"{made}/", "")
    links = [{"name": name, "what": what} for name, what in chain(content)]
    signature = "development" if development_signed(content) else "release"
    return {"failure": failure, "files": files, "signature": signature, "chain": links, "statement": content}


_WORK: dict[str, Callable[..., dict[str, Any]]] = {"compare": compare, "gate": gate, "trace": trace}


def main() -> None:
    """Do what the command line names with what standard input gives."""
    quiet()
    answer: dict[str, Any]
    with contextlib.redirect_stdout(sys.stderr):  # libraries print
        try:
            answer = {"found": _WORK[sys.argv[1]](**json.load(sys.stdin))}
        except FinsightError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
