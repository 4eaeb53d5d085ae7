"""Where the code of a result came from."""

from __future__ import annotations

import subprocess
from pathlib import Path

from finsight.errors import FinsightError


def revision(root: Path) -> dict[str, str]:
    """Tags ``git.commit`` and ``git.dirty``; empty where the folder is no git checkout."""
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return {}
    status = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"git.commit": commit, "git.dirty": str(bool(status)).lower()}


def stage(root: Path, *paths: str) -> None:
    """Stage files for the next commit.

    :raises FinsightError: when git refuses.
    """
    if _git(root, "add", *paths) is None:
        raise FinsightError(f"`git add {' '.join(paths)}` failed; work in a git checkout")


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
