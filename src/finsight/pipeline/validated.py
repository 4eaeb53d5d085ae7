"""The validated version of each corpus, that later ones are compared with: ``data/validated.json``, in git."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finsight.errors import ArtifactError
from finsight.files import atomic_file, read_json


def approve(profile: Path, validated: Path) -> list[str]:
    """Make the last corpora that passed the ones that later versions are compared with; return their names.

    Corpora that ``validated`` has beside them stay: they may be named in ``ingest.corpora`` again.

    :raises ArtifactError: when there is no profile, or either file is not what the stage writes.
    """
    corpora = read_json(profile, "dvc repro validate").get("corpora")
    if not isinstance(corpora, dict):
        raise ArtifactError(f"{profile}: got no `corpora`, expected the profile of each; `dvc repro --force validate` writes it")
    write_validated(validated, read_validated(validated) | corpora)
    return list(corpora)


def read_validated(path: Path) -> dict[str, Any]:
    """The validated profiles by corpus; none where the file is not there yet."""
    if not path.exists():
        return {}
    content = read_json(path, "finsight corpus approve")
    corpora = content.get("corpora")
    keys = {"labels", "lengths", "words"}
    if not isinstance(corpora, dict) or not all(isinstance(c, dict) and keys <= set(c) for c in corpora.values()):
        raise ArtifactError(
            f"{path}: not the profiles of a validated version; `git checkout {path}` brings them back, or delete it and run "
            "`finsight corpus approve`"
        )
    return corpora


def merged(corpora: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The histograms of several corpora together; None where there are none, or they can't be added."""
    if not corpora or any(len({len(one[name]) for one in corpora}) > 1 for name in ("lengths", "words")):
        return None
    labels = sum((Counter(one["labels"]) for one in corpora), Counter[str]())
    added = {name: [sum(column) for column in zip(*(one[name] for one in corpora), strict=True)] for name in ("lengths", "words")}
    return {"labels": dict(labels), **added}


def write_validated(path: Path, corpora: Mapping[str, Mapping[str, Any]]) -> None:
    """Write profiles as JSON with a line for each number or histogram, so that git shows what moved."""
    blocks = [
        f"    {json.dumps(name)}: {{\n" + ",\n".join(f"      {json.dumps(key)}: {json.dumps(one[key])}" for key in one) + "\n    }"
        for name, one in sorted(corpora.items())
    ]
    with atomic_file(path) as partial:
        partial.write_text('{\n  "corpora": {\n' + ",\n".join(blocks) + "\n  }\n}\n", encoding="utf-8")
