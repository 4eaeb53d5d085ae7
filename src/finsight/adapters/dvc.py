"""DVC from outside: its lock file, and its commands in a process of their own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from finsight.errors import DataError, FinsightError


def run(*arguments: str, cwd: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run ``dvc`` with its output shown.

    :raises FinsightError: when it fails.
    """
    if subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=cwd, env=environment).returncode:
        raise FinsightError(f"`dvc {' '.join(arguments)}` failed; its own message stands above")


def make_again(clone: Path, owner: Path) -> None:
    """Run the pipeline of a clone up to the bundle, every stage of it, on data from the owner's cache or remotes.

    :raises FinsightError: when DVC or a stage fails.
    """
    # The clone's tracking database is its own: what is made again is no new result.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_"))}
    environment = {**kept, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}
    local = owner / ".dvc/config.local"  # keys and addresses of remotes
    if local.exists():
        shutil.copy2(local, clone / ".dvc/config.local")
    cache = subprocess.run([sys.executable, "-m", "dvc", "cache", "dir"], cwd=owner, env=environment, capture_output=True, text=True)
    run("cache", "dir", "--local", cache.stdout.strip(), cwd=clone, environment=environment)
    if tracked := sorted(str(path.relative_to(clone)) for path in (clone / "data").rglob("*.dvc")):
        run("pull", *tracked, cwd=clone, environment=environment)
    run("repro", "--force", "--no-run-cache", "export", cwd=clone, environment=environment)


def fetch(revision: str, paths: Sequence[str], folder: Path) -> None:
    """Copy files of a git revision or an experiment into a folder, those that DVC keeps among them, from its cache or a remote.

    A file that the revision does not have is left out.

    :raises DataError: when there is no such revision, or no place has the content of a file.
    """
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc.scm import RevError
    from scmrepo.exceptions import SCMError

    try:
        files = DVCFileSystem(".", rev=revision)
        _ = files.repo  # opened when it is asked for; `exists` takes an unknown revision for one without files
        for path in paths:
            if files.exists(path):
                files.get_file(path, str(folder / Path(path).name))
    except (SCMError, RevError):
        raise DataError(f"{revision}: no git revision or experiment here; `git branch -a` and `dvc exp show` list them") from None
    except (DvcException, OSError) as error:
        said = re.sub(r"^\[Errno \d+\] ", "", " ".join(str(error).split()))
        raise DataError(
            f"{revision}: its files can't be had: {said}; `dvc push` them where they are and `dvc fetch -A` here, "
            "or commit what `dvc repro` makes of it here and name that commit"
        ) from None
