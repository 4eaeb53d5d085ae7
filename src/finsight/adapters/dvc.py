"""DVC from outside: its lock file, and its commands in a process of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from finsight.errors import FinsightError

# What a model is made of; each stands in dvc.lock under the stage that wrote it.
TRACED = ("data/raw/corpus.parquet", "data/prepared", "models/checkpoint", "models/bundle")


def locked(lock: Path) -> dict[str, str]:
    """Tags ``dvc.<path>`` with the digests that dvc.lock records for what a model is made of; empty without the file."""
    if not lock.is_file():
        return {}
    stages = YAML(typ="safe").load(lock.read_text(encoding="utf-8")).get("stages", {})
    outs = {out["path"]: out.get("md5", "") for stage in stages.values() for out in stage.get("outs", [])}
    return {f"dvc.{path}": outs[path] for path in TRACED if path in outs}


def run(*arguments: str, cwd: Path) -> None:
    """Run ``dvc`` with its output shown.

    :raises FinsightError: when it fails.
    """
    if subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=cwd).returncode:
        raise FinsightError(f"`dvc {' '.join(arguments)}` failed; its own message stands above")
