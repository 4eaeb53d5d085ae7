"""Push and pull of what DVC keeps, and of the runs that led to it."""

from __future__ import annotations

from collections.abc import Iterable

from dvc.repo import Repo, lock_repo

from finsight.adapters import run_cache
from finsight.adapters.objects import Objects, absent, objects
from finsight.adapters.remotes import opened
from finsight.errors import ArtifactError

NAMED = 3  # paths in a message


def push(remote: str, runs: str) -> int:
    """Send what the workspace's stages and ``.dvc`` files name; how many objects went.

    :param runs: which runs of the run cache go with it: ``current``, ``all`` or ``none``.
    :raises ArtifactError: when an output is neither in the cache nor in the remote.
    """
    with opened(remote) as repo:
        shares = runs != "none" and _keeps_runs(repo, remote)
        if shares:
            run_cache.remember(repo)
        sent: int = repo.push(remote=remote)
        _refuse_gaps(repo, remote)
        return sent + (run_cache.push_runs(repo, remote, every=runs == "all") if shares else 0)


def pull(remote: str, runs: bool) -> int:
    """Fetch what the workspace's stages and ``.dvc`` files name, and put it in place; how many objects came.

    :param runs: whether runs of the run cache are fetched too, with the outputs of those that the present parameters lead to.
    :raises ArtifactError: when the remote lacks an object, or has a damaged one.
    """
    with opened(remote) as repo:
        # An output without a digest (a pipeline that has not run here yet) is no failure; one that should have come is, see below.
        try:
            fetched: int = repo.pull(remote=remote, allow_missing=True)["stats"]["fetched"]
        finally:
            _refuse_damage(repo, remote)
        return fetched + (run_cache.pull_runs(repo, remote) if runs and _keeps_runs(repo, remote) else 0)


def _keeps_runs(repo: Repo, remote: str) -> bool:
    """A remote that keeps files under their own names (``version_aware``), or one over http, has no place for runs."""
    far = repo.cloud.get_remote(remote).fs
    return not far.version_aware and far.protocol not in ("http", "https")


def _lacking(repo: Repo) -> Objects:
    """Objects that the workspace names and the cache does not have."""
    with lock_repo(repo):
        outs = {str(out): out.hash_info for out in repo.index.outs if out.use_cache and out.hash_info}
    return absent(objects(outs, repo.cache.local), repo.cache.local)


def _refuse_gaps(repo: Repo, remote: str) -> None:
    lacking = _lacking(repo)
    if lacking and _keeps_runs(repo, remote):
        lacking = absent(lacking, repo.cloud.get_remote_odb(remote, "push"))
    if lacking:
        raise ArtifactError(f"neither here nor at remote {remote}: {_some(lacking.values())}; `dvc repro` makes it, then push again")


def _refuse_damage(repo: Repo, remote: str) -> None:
    """Say why a pull left gaps: an object is not there, or it was and its content is not what its name says."""
    lacking = _lacking(repo)
    if not lacking or not _keeps_runs(repo, remote):
        return
    far = repo.cloud.get_remote_odb(remote, "pull")
    gone = absent(lacking, far)
    if gone:
        raise ArtifactError(f"remote {remote} does not have {_some(gone.values())}; `finsight push -r {remote}` where it was made")
    damaged = next(iter(lacking))
    place = far.fs.unstrip_protocol(far.oid_to_path(damaged.value))
    raise ArtifactError(
        f"remote {remote}: {_some(lacking.values())} arrived damaged ({place}) and was thrown away; "
        f"remove that object and `finsight push -r {remote}` from a clone that has it"
    )


def _some(paths: Iterable[str]) -> str:
    names = sorted(set(paths))
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
