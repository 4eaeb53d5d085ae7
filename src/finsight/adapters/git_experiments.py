"""Experiments of DVC's, read from the git references that keep them: milliseconds, where ``dvc exp show`` takes seconds and a lock."""

from __future__ import annotations

import io
import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from finsight.params.file import dotted
from finsight.service_ports import Experiment, Tried

# refs/exps/ab/cdef…/name: the digits are the baseline's. What else lies below refs/exps (stash, exec, celery) is DVC's own.
_REFERENCE = re.compile(r"refs/exps/([0-9a-f]{2})/([0-9a-f]{38}|[0-9a-f]{62})/([^/]+)")
_PARAMS, _METRICS = "./params.yaml", "./reports/metrics.json"  # from the project's folder, which may lie below that of git


class GitExperiments:
    """The experiments of one clone; none where the folder is not in a git checkout."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def all(self) -> list[Experiment]:
        """See :class:`finsight.service_ports.ExperimentLog`."""
        form = "--format=%(refname)\t%(objectname)\t%(committerdate:unix)"
        found = []
        for line in self._git("for-each-ref", form, "refs/exps/").decode(errors="replace").splitlines():
            reference, commit, created = line.split("\t")
            if named := _REFERENCE.fullmatch(reference):
                when = datetime.fromtimestamp(int(created), UTC).isoformat()
                found.append(Experiment(named[3], commit, named[1] + named[2], when))
        return sorted(found, key=lambda one: one.order, reverse=True)

    def outcomes(self, experiments: Sequence[Experiment]) -> list[Tried]:
        """See :class:`finsight.service_ports.ExperimentLog`."""
        wanted = [f"{one.commit}:{path}" for one in experiments for path in (_PARAMS, _METRICS)]
        texts = _contents(self._git("cat-file", "--batch", given="\n".join(wanted))) if wanted else []
        return [Tried(_yaml(params), _json(metrics)) for params, metrics in zip(texts[::2], texts[1::2], strict=True)]

    def _git(self, *arguments: str, given: str = "") -> bytes:
        done = subprocess.run(["git", *arguments], cwd=self._root, input=given.encode(), capture_output=True)
        return done.stdout if done.returncode == 0 else b""


def _contents(batch: bytes) -> list[bytes]:
    """The files of the output of ``git cat-file --batch``; an empty one for each that there is not."""
    stream, found = io.BytesIO(batch), []
    while head := stream.readline().split():
        if head[-1] == b"missing":
            found.append(b"")
        else:
            found.append(stream.read(int(head[-1])))
            stream.read(1)
    return found


def _yaml(text: bytes) -> Mapping[str, Any]:
    try:
        content = YAML(typ="safe").load(text.decode())
    except (YAMLError, UnicodeDecodeError):
        return {}
    return dotted(content) if isinstance(content, Mapping) else {}


def _json(text: bytes) -> Mapping[str, Any]:
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    return dotted(content) if isinstance(content, Mapping) else {}
