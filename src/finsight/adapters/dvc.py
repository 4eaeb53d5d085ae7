"""DVC from outside: its lock file, and its commands in a process of their own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from finsight.errors import DataError, FinsightError, ParamsError


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


def share_cache(owner: Path, clone: Path) -> None:
    """Let another clone use the owner's cache, and its configuration that is in no commit.

    :raises FinsightError: when DVC can't read that.
    """
    from configobj import ConfigObjError
    from dvc.config import Config
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(owner)) as repo, Config(str(clone / ".dvc")).edit("local") as local:
            local.update(repo.config.read("local"))  # with whole paths
            local["cache"] = {**local.get("cache", {}), "dir": str(repo.cache.local_cache_dir)}
    except (DvcException, ConfigObjError) as error:
        raise FinsightError(f"{owner}: DVC can't read its configuration ({' '.join(str(error).split())[:200]}); `dvc config -l`") from None


def makes(root: Path, targets: Sequence[str], path: str) -> bool:
    """Whether running up to these stages, or all where there are none, makes a file.

    :raises ParamsError: when there is no such stage.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    wanted: Sequence[str | None] = targets or [None]
    with Repo(str(root)) as repo:
        try:
            stages = [stage for target in wanted for stage in repo.stage.collect(target, with_deps=True)]
        except DvcException as error:
            raise ParamsError(f"{' '.join(targets)}: {' '.join(str(error).split())[:200]}; `dvc stage list` has the stages") from None
        return any(Path(out.fs_path).resolve() == (root / path).resolve() for stage in stages for out in stage.outs)


def combinations(overrides: Sequence[str]) -> list[tuple[str, ...]]:
    """Every combination of the values that overrides of parameters name, as ``dvc exp run --queue -S`` takes them.

    :raises ParamsError: when one is no override.
    """
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import get_hydra_sweeps
    from hydra.errors import HydraException

    try:
        return [tuple(found[""]) for found in get_hydra_sweeps({"": list(overrides)})]
    except (DvcException, HydraException) as error:
        raise ParamsError(f"-S: {' '.join(str(error).split())[:200]}; expected key=value, key=value,value or key=range(…)") from None


def with_overrides(text: str, overrides: Sequence[str]) -> str:
    """The text of a params.yaml as ``dvc exp run -S`` changes it.

    :raises ParamsError: when a key is not in it.
    """
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import apply_overrides

    with TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            apply_overrides(str(path), list(overrides))
        except DvcException as error:
            said = " ".join(str(error.__cause__ or error).split())[:200]
            raise ParamsError(f"-S {' -S '.join(overrides)}: {said}") from None
        return path.read_text(encoding="utf-8")
