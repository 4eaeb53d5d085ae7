"""What DVC keeps that nobody needs, here and in a remote, and its removal.

DVC's own ``gc`` knows neither the model versions of a registry, nor branches that only exist at git's remotes, nor the small reports that
runs of the run cache name.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.repo import Repo, lock_repo
from dvc_data.hashfile.db import get_index
from dvc_data.hashfile.hash_info import HashInfo
from scmrepo.exceptions import SCMError

from finsight.adapters.carriage import bring_lists
from finsight.adapters.objects import absent, locked_stages, objects, outputs
from finsight.adapters.remotes import here, opened
from finsight.adapters.run_cache import entries, fetch_entries, read_entry
from finsight.errors import FinsightError

REFERENCES = ("refs/heads", "refs/remotes", "refs/tags", "refs/exps")
# Each holds many, in its reflog.
STASHES = ("refs/stash", "refs/exps/stash", "refs/exps/celery/stash", "refs/exps/celery/failed")


@dataclass(frozen=True, slots=True)
class Registered:
    """A model version as far as its files are concerned.

    :param lock: the text of its dvc.lock.
    :param commit: git commit that it was made at; empty where that is not known.
    """

    name: str
    lock: str
    commit: str


@dataclass(frozen=True, slots=True)
class Unneeded:
    """What a place keeps in vain: objects and runs by path, and their size in bytes.

    :param kept: number of objects that are needed.
    """

    place: str
    objects: Sequence[str]
    runs: Sequence[str]
    size: int
    kept: int


def collect(versions: Sequence[Registered], remote: str | None, remove: bool) -> list[Unneeded]:
    """What no branch, tag, experiment, model version or the workspace needs, in the cache and, where one is named, in a remote.

    :param remove: whether it is removed.
    :raises FinsightError: when what is needed can't be found out; nothing is removed then.
    """
    with opened(remote) if remote else here() as repo, lock_repo(repo):
        if remove and not Path(repo.cache.local.path).resolve().is_relative_to(Path(repo.dvc_dir).resolve()):
            raise FinsightError(
                f"{repo.cache.local.path}: the cache lies outside this clone, and what others have in it can't be known; "
                "`dvc gc -p` takes the clones that share it"
            )
        far = repo.cloud.get_remote_odb(remote, "gc") if remote else None
        digests = _named(repo, versions)
        bring_lists(digests, far, repo.cache.local)
        if remote:
            fetch_entries(repo, remote)
            if remove and (gone := absent({digest: digest.value for digest in digests if digest.isdir}, repo.cache.local)):
                raise FinsightError(
                    f"remote {remote}: {len(gone)} folders that are needed have no list there or here, so nobody knows their files; "
                    f"`finsight push -r {remote}` from a clone that has them"
                )
        needed = {digest.value for digest in objects({digest.value: digest for digest in digests}, repo.cache.local)}
        broken = _runs(repo, needed)
        found = [_unneeded("here", repo.cache.local, repo.cache.legacy, needed, broken)]
        if far is not None:
            legacy = repo.cloud.get_remote_odb(remote, "gc", hash_name="md5-dos2unix")
            found.append(_unneeded(f"remote {remote}", far, legacy, needed, broken))
        for one, store in zip(found, (repo.cache.local, far), strict=False):
            if remove and (paths := [*one.runs, *sorted(one.objects, key=lambda path: not path.endswith(".dir"))]):
                store.fs.remove(paths)
                get_index(store).clear()
        return found


def _named(repo: Repo, versions: Sequence[Registered]) -> set[HashInfo]:
    """Digests of all outputs of the workspace, of whatever git has a name for, and of model versions."""
    stages = [stage for version in versions for stage in locked_stages(version.lock)]
    # What a version was made from, too: corpora under DVC stand among the dependencies, and its commit may not be here.
    named = {digest for stage in stages for key in ("outs", "deps") for digest in outputs(stage, key).values()}
    revisions = ["HEAD", *_tips(Path(repo.root_dir)), *(version.commit for version in versions)]
    for _ in repo.brancher(revs=[*filter(_known(repo), dict.fromkeys(revisions))]):
        named |= {out.hash_info for out in repo.index.outs if out.hash_info}
    return named


def _tips(root: Path) -> Iterator[str]:
    """Every commit that git has a name for: branches, tags, experiments, what is stashed or queued, other worktrees' heads."""

    def lines(*arguments: str) -> list[str]:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True).stdout.splitlines()

    yield from lines("for-each-ref", "--format=%(objectname)", *REFERENCES)
    for stash in STASHES:
        yield from lines("reflog", "--format=%H", stash)
    yield from (line.removeprefix("HEAD ") for line in lines("worktree", "list", "--porcelain") if line.startswith("HEAD "))


def _known(repo: Repo) -> Callable[[str], bool]:
    """Whether git has a commit; a version may come from one of another clone, or a tag may name something else."""

    def known(revision: str) -> bool:
        try:
            return bool(revision) and bool(repo.scm.resolve_commit(revision))
        except (SCMError, AttributeError):  # the second for a tag on something that is no commit
            return False

    return known


def _runs(repo: Repo, needed: set[str]) -> set[str]:
    """Runs that led to something that is not needed; the reports of the others are added to what is."""
    kept_in_git = {out.def_path for out in repo.index.outs if not out.use_cache}
    broken = set()
    for name in entries(repo.cache.legacy):
        outs = outputs(read_entry(repo, name))
        if all(digest.value in needed for path, digest in outs.items() if path not in kept_in_git):
            needed.update(digest.value for digest in outs.values())
        else:
            broken.add(name)
    return broken


def _unneeded(place: str, store: Any, legacy: Any, needed: set[str], broken: set[str]) -> Unneeded:
    kept, vain, size = 0, [], 0
    for path in store.fs.find(store.path):
        try:
            digest = store.path_to_oid(path)
        except ValueError:  # not an object's name: somebody else's file
            continue
        if digest in needed:
            kept += 1
        else:
            vain.append(path)
            size += store.fs.size(path)
    runs = [legacy.fs.join(legacy.path, name) for name in sorted(entries(legacy) & broken)]
    return Unneeded(place, vain, runs, size, kept)
