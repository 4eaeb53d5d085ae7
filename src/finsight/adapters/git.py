"""Where the code of a result came from."""

from __future__ import annotations

import getpass
import re
import socket
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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
    found = _git(root, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", *SHAPING)
    changed = ["what `git status` can't tell"] if found is None else [entry[3:] for entry in found.split("\0") if entry]
    origin = _git(root, "config", "--get", "remote.origin.url") or ""
    return {"revision": commit.strip(), "changed": sorted(changed), "cloned_from": _public(origin.strip())}


def _public(origin: str) -> str:
    """Where a clone came from, without what may be secret in it; empty for a path, which says nothing to others."""
    if re.fullmatch(r"[\w.-]+@[\w.-]+:[^@?]+", origin):  # git@host:owner/name
        return origin
    try:
        parts = urlsplit(origin)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    secret = "@" in parts.path or not parts.hostname  # a password with a slash in it moves all behind it into the path
    return "" if secret or parts.scheme == "file" else f"{parts.scheme}://{parts.hostname}{port}{parts.path}"


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
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", revision):  # it comes from elsewhere: git takes what begins with - for an option
        raise DataError(f"git revision {revision[:60]!r}: expected the 40 or 64 hexadecimal digits of a commit")
    if into.exists() and any(into.iterdir()):
        raise DataError(f"{into}: holds something already; name a folder that is new or empty")
    # Without hard links: what is reproduced must not be able to touch what it is compared with.
    if _git(root, "clone", "-q", "--no-hardlinks", "--no-checkout", str(root), str(into)) is None:
        raise FinsightError(f"`git clone {root}` failed; work in a git checkout")
    if _git(into, "checkout", "-q", "--detach", revision) is None and (
        _git(into, "fetch", "-q", "origin", revision) is None or _git(into, "checkout", "-q", "--detach", revision) is None
    ):
        raise DataError(f"git revision {revision[:12]} is not in this clone; `git fetch` it from where the version was made")


def borrow(root: Path, revision: str, into: Path) -> Path:
    """A clone for a while, which has no objects of its own but new ones; the folder in it that ``root`` is in the repository.

    Whoever works here is the author there, too.

    :raises FinsightError: when git refuses.
    """
    top, prefix = (lines(root, "rev-parse", f"--{what}") for what in ("show-toplevel", "show-prefix"))
    lines(root, "clone", "-q", "--shared", "--no-checkout", top[0], str(into))
    lines(into, "checkout", "-q", "--detach", revision)
    for key in ("user.name", "user.email"):
        if value := _git(root, "config", "--get", key):
            lines(into, "config", key, value.strip())
    return into / (prefix[0] if prefix else "")


def bring(root: Path, clone: Path, name: str) -> bool:
    """Take over an experiment of DVC's from another clone; whether there is one of this name now."""
    found = _git(clone, "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{name}") or ""
    for reference in found.split():
        _git(root, "fetch", "-q", "--no-write-fetch-head", str(clone), f"+{reference}:{reference}")
    return experiment(root, name) is not None


def stage(root: Path, *paths: str) -> None:
    """Stage files for the next commit.

    :raises FinsightError: when git refuses.
    """
    if _git(root, "add", *paths) is None:
        raise FinsightError(f"`git add {' '.join(paths)}` failed; work in a git checkout")


def lines(root: Path, *arguments: str) -> list[str]:
    """What a git command says.

    :raises FinsightError: when it fails: that it says nothing must not be taken for an answer.
    """
    done = _run(root, *arguments)
    if done is None or done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1] if done else "git is not installed"
        raise FinsightError(f"`git {' '.join(arguments)}` fails in {root} ({why}); run it there to see more")
    return done.stdout.splitlines()


def revision(root: Path) -> str:
    """The commit that is checked out.

    :raises DataError: when there is none.
    """
    found = _git(root, "rev-parse", "--verify", "HEAD")
    if found is None:
        raise DataError(f"{root}: no git checkout with a commit; jobs run in one")
    return found.strip()


def committed(root: Path, path: str) -> str:
    """A file as it is committed.

    :raises DataError: when it is not.
    """
    found = show(root, "HEAD", path)
    if found is None:
        raise DataError(f"{path}: not committed in {root}; jobs run in a git checkout with the project in it")
    return found


def show(root: Path, revision: str, path: str) -> str | None:
    """A file of a revision; None where it has none."""
    return _git(root, "show", f"{revision}:{path}")


def uncommitted(root: Path) -> list[str]:
    """Files in git that shape a result and are changed since the last commit."""
    found = _git(root, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=no", "--", *SHAPING, "params.yaml", ".dvc")
    return ["what `git status` can't tell"] if found is None else sorted(entry[3:] for entry in found.split("\0") if entry)


def tracked(root: Path, *paths: str) -> bool:
    """Whether any of these files, folders or patterns is in the last commit or staged for the next."""
    return bool(_git(root, "ls-files", "-z", "--", *paths))


def experiment(root: Path, name: str) -> str | None:
    """The commit of an experiment of DVC's by its name; None where there is none."""
    found = (_git(root, "for-each-ref", "--format=%(refname) %(objectname)", "refs/exps") or "").split("\n")
    return next((line.split()[1] for line in found if line.partition(" ")[0].rpartition("/")[2] == name), None)


def _git(root: Path, *arguments: str) -> str | None:
    done = _run(root, *arguments)
    return done.stdout if done and done.returncode == 0 else None


def _run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str] | None:
    """None where there is no git."""
    try:
        # A path may be in any encoding.
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, encoding="utf-8", errors="backslashreplace")
    except FileNotFoundError:
        return None
