"""Where the code of a result came from."""

from __future__ import annotations

import getpass
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

from finsight.errors import DataError, FinsightError

# What shapes a result; params.yaml is recorded beside it, and what DVC writes has its digest in dvc.lock.
SHAPING = ("src", "stages", "data", "dvc.yaml", "constraints.txt", "pyproject.toml")


def state(root: Path) -> dict[str, Any]:
    """The checked-out ``revision``, what is ``changed`` since of all that shapes a result, where it is ``cloned_from``.

    Empty where the folder is no git checkout with a commit.
    """
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return {}
    # With -z a path stands as it is; each has its status, of two letters and a blank, in front.
    found = _git(root, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", *SHAPING) or ""
    origin = re.sub(r"://[^/@]+@", "://", _git(root, "config", "--get", "remote.origin.url") or "")
    return {
        "revision": commit.strip(),
        "changed": sorted(entry[3:] for entry in found.split("\0") if entry),
        "cloned_from": origin.strip() if re.match(r"\w+://|[\w.-]+@", origin) else "",  # a path says nothing to others
    }


def author(root: Path) -> str:
    """Who works here: git's name and address, or else the user and host."""
    name, address = (_git(root, "config", "--get", f"user.{key}") for key in ("name", "email"))
    if name and address:
        return f"{name.strip()} <{address.strip()}>"
    return f"{getpass.getuser()}@{socket.gethostname()}"


def clone(root: Path, revision: str, into: Path) -> None:
    """A clone of its own, with a revision checked out.

    :raises DataError: when the repository does not have the revision.
    """
    # Without hard links: what is reproduced must not be able to touch what it is compared with.
    if _git(root, "clone", "-q", "--no-hardlinks", "--no-checkout", str(root), str(into)) is None:
        raise FinsightError(f"`git clone {root}` failed; work in a git checkout")
    if _git(into, "checkout", "-q", "--detach", revision) is None and (
        _git(into, "fetch", "-q", "origin", revision) is None or _git(into, "checkout", "-q", "--detach", revision) is None
    ):
        raise DataError(f"git revision {revision[:12]} is not in this clone; `git fetch` it from where the version was made")


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
    return done.stdout if done.returncode == 0 else None
