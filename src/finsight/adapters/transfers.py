"""Push and pull of what DVC keeps, and of the runs that led to it."""

from __future__ import annotations

from collections.abc import Iterable

from dvc.exceptions import CheckoutError, DvcException
from dvc.repo import Repo, lock_repo
from dvc_data.hashfile.hash_info import HashInfo

from finsight.adapters import run_cache
from finsight.adapters.carriage import bring, send
from finsight.adapters.objects import Objects, absent, damaged, objects
from finsight.adapters.remotes import opened
from finsight.errors import ArtifactError

NAMED = 3  # paths in a message


def push(remote: str, runs: str) -> int:
    """Send what the workspace's stages and ``.dvc`` files name; how many objects went.

    :param runs: which runs of the run cache go with it: ``current``, ``all`` or ``none``.
    :raises ArtifactError: when an output is neither in the cache nor in the remote.
    """
    with opened(remote) as repo:
        if _own_names(repo, remote):
            return int(repo.push(remote=remote))
        found = objects(_outputs(repo, remote), repo.cache.local)
        led: dict[str, Objects] = {}
        if runs != "none" and _keeps_runs(repo, remote):
            # What an output is to keep to itself must not get there by way of a run.
            private = {str(out.def_path) for out in repo.index.outs if not out.can_push or out.remote not in (None, remote)}
            led = run_cache.remember(repo, private) | (run_cache.all_runs(repo, private) if runs == "all" else {})
        for its in led.values():
            found |= its
        far = repo.cloud.get_remote_odb(remote, "push")
        lacking = absent(found, far)
        if gaps := absent(lacking, repo.cache.local) | damaged(lacking, repo.cache.local):
            raise ArtifactError(f"neither whole here nor at remote {remote}: {_some(gaps.values())}; `dvc repro` makes it, then push again")
        count = send(lacking, repo.cache.local, far)
        return count + (run_cache.push_runs(repo, remote, led) if led else 0)


def pull(remote: str, runs: bool) -> int:
    """Fetch what the workspace's stages and ``.dvc`` files name, and put it in place; how many objects came.

    :param runs: whether runs of the run cache are fetched too, with the outputs of those that the present parameters lead to.
    :raises ArtifactError: when the remote lacks an object, or has a damaged one.
    """
    with opened(remote) as repo:
        if _own_names(repo, remote):
            return int(repo.pull(remote=remote)["stats"]["fetched"])
        outs = _outputs(repo, remote)
        count, gone = bring(outs, repo.cloud.get_remote_odb(remote, "pull"), repo.cache.local)
        _put_in_place(repo, outs)
        # What dvc.lock names may never have been pushed, and a run that leads to what the parameters say may have been.
        count += run_cache.pull_runs(repo, remote) if runs and _keeps_runs(repo, remote) else 0
        if gone:
            raise ArtifactError(f"remote {remote} does not have {_some(gone.values())}; `finsight push -r {remote}` where it was made")
        return count


def _put_in_place(repo: Repo, outs: dict[str, HashInfo]) -> None:
    """Copy what is whole in the cache into the workspace: DVC removes an output that it can't put in place.

    :raises ArtifactError: when that would overwrite what is nowhere else, or does not work; the cache keeps what it has.
    """
    cache = repo.cache.local
    whole = [path for path, digest in outs.items() if not absent(objects({path: digest}, cache), cache)]
    try:
        if whole:
            repo.checkout(targets=whole)
    except CheckoutError as error:
        raise ArtifactError(f"{_some(error.target_infos)}: could not be put in place; is the disk full? then `dvc checkout`") from error
    except DvcException as error:
        if "--force" not in str(error):
            raise
        changed = [line for line in str(error).splitlines()[1:] if line]
        raise ArtifactError(
            f"{_some(changed)}: changed here and kept nowhere else; `dvc commit` it, or remove it, then pull again"
        ) from None


def _own_names(repo: Repo, remote: str) -> bool:
    """Whether a remote keeps files under their own names (``version_aware``), in place of digests; it has no room for runs then."""
    return bool(repo.cloud.get_remote(remote).fs.version_aware)


def _keeps_runs(repo: Repo, remote: str) -> bool:
    return repo.cloud.get_remote(remote).fs.protocol not in ("http", "https")  # DVC can't list these


def _outputs(repo: Repo, remote: str) -> dict[str, HashInfo]:
    with lock_repo(repo):
        ours = [out for out in repo.index.outs if out.use_cache and out.hash_info and out.can_push]
        # An output may name a remote of its own, and an import is fetched from where it came from.
        ours = [out for out in ours if out.remote in (None, remote) and not out.stage.is_repo_import]
    if old := next((out for out in ours if out.hash_info.name != "md5"), None):  # DVC 2 hashed texts otherwise, and kept them elsewhere
        raise ArtifactError(
            f"{old}: its digest was made by DVC 2; `dvc pull -r {remote}`, then `dvc cache migrate --dvc-files`, and push again"
        )
    return {str(out): out.hash_info for out in ours}


def _some(paths: Iterable[str]) -> str:
    names = sorted(set(paths))
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
