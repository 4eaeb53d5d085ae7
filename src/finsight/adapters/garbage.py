"""What DVC keeps that nobody needs, here and in a remote, and its removal.

DVC's own ``gc`` knows neither the model versions of a registry, nor branches that only exist at git's remotes, nor the small reports that
runs of the run cache name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.repo import Repo, lock_repo
from dvc_data.hashfile.db import get_index
from dvc_data.hashfile.hash_info import HashInfo
from ruamel.yaml import YAML
from scmrepo.exceptions import SCMError

from finsight.adapters import git
from finsight.adapters.carriage import bring_lists
from finsight.adapters.objects import absent, locked_stages, objects, outputs
from finsight.adapters.remotes import here, opened
from finsight.adapters.run_cache import entries, fetch_entries, read_entry
from finsight.errors import FinsightError

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
        digests, sources = _named(repo, versions)
        bring_lists(digests, far, repo.cache.local)
        if remote:
            fetch_entries(repo, remote)
            if remove and (gone := absent({digest: digest.value for digest in digests if digest.isdir}, repo.cache.local)):
                raise FinsightError(
                    f"remote {remote}: {len(gone)} folders that are needed have no list there or here, so nobody knows their files; "
                    f"`finsight push -r {remote}` from a clone that has them"
                )
        needed = {digest.value for digest in objects({digest.value: digest for digest in digests | sources}, repo.cache.local)}
        broken = _runs(repo, needed)
        found = [_unneeded("here", repo.cache.local, repo.cache.legacy, needed, broken)]
        if far is not None:
            legacy = repo.cloud.get_remote_odb(remote, "gc", hash_name="md5-dos2unix")
            found.append(_unneeded(f"remote {remote}", far, legacy, needed, broken))
        for one, store in zip(found, (repo.cache.local, far), strict=False):
            if remove:
                # A run goes before what it led to, a folder's list before the folder's files: what is named is there.
                for paths in (one.runs, sorted(one.objects, key=lambda path: not path.endswith(".dir"))):
                    _remove(store, paths, one.place)
        return found


def _remove(store: Any, paths: Sequence[str], place: str) -> None:
    if not paths:
        return
    store.fs.remove(list(paths))
    get_index(store).clear()
    # S3 answers a removal that it refuses with 200 and a list of refusals, which s3fs does not read.
    store.fs.fs.invalidate_cache()
    if store.fs.exists(paths[0]) or store.fs.exists(paths[-1]):
        raise FinsightError(f"{place}: {paths[0]} and more are still there after their removal; does the key allow to delete?")


def _named(repo: Repo, versions: Sequence[Registered]) -> tuple[set[HashInfo], set[HashInfo]]:
    """Digests of all outputs of the workspace, of whatever git has a name for, and of model versions; and of what versions were made from:
    corpora under DVC stand among the dependencies, and a version's commit may not be here. Some of those are git's own, unknown to DVC.
    """
    stages = [stage for version in versions for stage in locked_stages(version.lock)]
    named, sources = ({digest for stage in stages for digest in outputs(stage, key).values()} for key in ("outs", "deps"))
    revisions = ["HEAD", *_tips(Path(repo.root_dir)), *(version.commit for version in versions)]
    for _ in repo.brancher(revs=[*filter(_known(repo), dict.fromkeys(revisions))]):
        named |= {out.hash_info for out in repo.index.outs if out.hash_info}
    named.update(_untracked(Path(repo.root_dir)))
    return named, sources - named


def _tips(root: Path) -> Iterator[str]:
    """Every commit that git has a name for: branches, tags, experiments, what is stashed or queued, other worktrees' heads.

    :raises FinsightError: when git can't say.
    """
    references = dict(line.split() for line in git.lines(root, "for-each-ref", "--format=%(refname) %(objectname)"))
    yield from references.values()
    for stash in STASHES:
        if stash in references:
            yield from git.lines(root, "reflog", "--format=%H", stash)
    heads = git.lines(root, "worktree", "list", "--porcelain")
    yield from (line.removeprefix("HEAD ") for line in heads if line.startswith("HEAD "))


def _untracked(root: Path) -> Iterator[HashInfo]:
    """What `git stash -u` has put away: such files are in a commit of their own, the stash's third parent, which is no DVC repository."""
    if not git.lines(root, "for-each-ref", STASHES[0]):
        return
    for stash in git.lines(root, "reflog", "--format=%P", STASHES[0]):
        for commit in stash.split()[2:]:
            for path in git.lines(root, "-c", "core.quotepath=off", "ls-tree", "-r", "--name-only", commit):
                if path.endswith(".dvc"):
                    yield from outputs(YAML(typ="safe").load("\n".join(git.lines(root, "show", f"{commit}:{path}")))).values()


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
    broken, named = set(), frozenset(needed)
    for name in entries(repo.cache.legacy):
        outs = outputs(read_entry(repo, name))
        large = {path: digest for path, digest in outs.items() if path not in kept_in_git} or outs
        if large and all(digest.value in named for digest in large.values()):
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
