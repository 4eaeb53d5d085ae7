"""DVC's run cache, shared: which inputs led to which outputs, so that a colleague's identical run is fetched in place of computed.

DVC's own ``push --run-cache`` sends what its run cache says and not the objects that it names, and a stage with an output that is kept
in git (``cache: false``) does not get into it at all, metrics and plots apart. Both are mended here; `dvc repro` reads what comes of it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import networkx
import voluptuous
from dvc.dependency.base import DependencyDoesNotExistError
from dvc.repo import Repo, lock_repo
from dvc.schema import COMPILED_LOCK_FILE_STAGE_SCHEMA
from dvc.stage.cache import _can_hash, _get_cache_hash
from dvc.stage.serialize import to_single_stage_lockfile
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.meta import Meta
from dvc_data.hashfile.tree import Tree
from dvc_objects.fs import generic
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from finsight.adapters.carriage import bring
from finsight.adapters.objects import Objects, absent, objects, outputs

RUNS = "runs"
_RUN = re.compile(rf"{RUNS}/[0-9a-f]{{2}}/[0-9a-f]{{64}}/[0-9a-f]{{64}}")


def remember(repo: Repo, private: Collection[str] = ()) -> dict[str, Objects]:
    """Put each stage that is up to date into the run cache, and its outputs that are kept in git into the cache.

    :param private: paths of outputs whose runs are left out.
    :returns: the runs that dvc.lock describes, by name, with the objects that they led to.
    """
    found = {}
    with lock_repo(repo):
        for stage in repo.index.stages:
            name = None if any(str(out.def_path) in private for out in stage.outs) else _name(stage)
            if name and not (known := Path(repo.cache.legacy.path, name).is_file()):
                known = not stage.changed() and _can_hash(stage)
                if known:
                    repo.stage_cache.save(stage)
            if name and known:
                found[name] = objects({str(out.def_path): out.hash_info for out in stage.outs}, repo.cache.local)
    return _whole(repo, found)


def all_runs(repo: Repo, private: Collection[str] = ()) -> dict[str, Objects]:
    """The runs that the cache still has the objects of, by name; but those with an output among ``private``."""
    found = {name: outputs(read_entry(repo, name)) for name in sorted(entries(repo.cache.legacy))}
    return _whole(repo, {name: objects(outs, repo.cache.local) for name, outs in found.items() if not outs.keys() & set(private)})


def _whole(repo: Repo, runs: dict[str, Objects]) -> dict[str, Objects]:
    return {name: found for name, found in runs.items() if not absent(found, repo.cache.local)}


def _name(stage: Any) -> str | None:
    """Where DVC's run cache keeps what dvc.lock says of a stage; None where it says nothing, or DVC always runs it."""
    if not stage.cmd or stage.always_changed or not all(item.hash_info for item in (*stage.deps, *stage.outs)):
        return None
    key = _get_cache_hash(to_single_stage_lockfile(stage), key=True)
    return f"{RUNS}/{key[:2]}/{key}/{_get_cache_hash(to_single_stage_lockfile(stage))}"


def entries(odb: Any) -> set[str]:
    """The runs of a cache or a remote, as paths within it; what a killed transfer has left beside them, or anybody else, is none."""
    found = (odb.fs.relpath(path, odb.path) for path in odb.fs.find(odb.fs.join(odb.path, RUNS)))
    return {name for name in found if _RUN.fullmatch(name)}


def read_entry(repo: Repo, name: str) -> dict[str, Any]:
    """What a run of the cache says: command, parameters, dependencies and outputs."""
    try:
        entry = YAML(typ="safe").load(Path(repo.cache.legacy.path, name).read_text(encoding="utf-8"))
        return dict(COMPILED_LOCK_FILE_STAGE_SCHEMA(entry))
    except (YAMLError, UnicodeDecodeError, voluptuous.Invalid):  # it was cut off: it says nothing
        return {}


def push_runs(repo: Repo, remote: str, names: Iterable[str]) -> int:
    """Send what runs say. What they lead to goes before, so that a run never stands without its outputs."""
    far = repo.cloud.get_remote_odb(remote, "push", hash_name="md5-dos2unix")
    return _copy(repo.cache.legacy, far, set(names) - entries(far))


def pull_runs(repo: Repo, remote: str) -> int:
    """Fetch all runs that the remote knows, and the objects of those that answer to the parameters and files of this workspace."""
    fetched = fetch_entries(repo, remote)
    with lock_repo(repo):
        return fetched + _fetch_matching(repo, repo.cloud.get_remote_odb(remote, "fetch"))


def fetch_entries(repo: Repo, remote: str) -> int:
    """Fetch what the runs say that a remote knows; how many were new."""
    far, near = repo.cloud.get_remote_odb(remote, "fetch", hash_name="md5-dos2unix"), repo.cache.legacy
    return _copy(far, near, entries(far) - entries(near))


def _copy(source: Any, target: Any, names: Iterable[str]) -> int:
    wanted = sorted(names)
    if wanted:
        places = [[odb.fs.join(odb.path, name) for name in wanted] for odb in (source, target)]
        for folder in {target.fs.parent(place) for place in places[1]}:
            target.fs.makedirs(folder, exist_ok=True)
        generic.copy(source.fs, places[0], target.fs, places[1])
    return len(wanted)


def _fetch_matching(repo: Repo, source: Any) -> int:
    """Walk the pipeline as `dvc repro` would, with the outputs that the run cache promises in place of those that it would compute."""
    promised: dict[str, HashInfo | None] = {}
    fetched = 0
    for stage in reversed(list(networkx.topological_sort(repo.index.graph))):
        entry = _matching(repo, stage, promised)
        outs: dict[str, HashInfo | None] = dict.fromkeys(out.def_path for out in stage.outs)
        if entry:
            count, gone = bring(outputs(entry), source, repo.cache.local)
            fetched += count
            outs |= {} if gone else outputs(entry)
        promised |= outs if stage.cmd else {}
    return fetched


def _matching(repo: Repo, stage: Any, promised: dict[str, HashInfo | None]) -> dict[str, Any] | None:
    """The run that answers to a stage, its dependencies as they will be."""
    if not stage.cmd or stage.always_changed:
        return None
    try:
        for dependency in stage.deps:
            above = next((path for path in promised if f"{dependency.def_path}/".startswith(f"{path}/")), None)
            if above is None:
                dependency.save()
            else:
                digest = _within(promised[above], dependency.def_path[len(above) + 1 :], repo.cache.local)
                if digest is None:
                    return None
                dependency.hash_info, dependency.meta = digest, Meta()
    except DependencyDoesNotExistError:
        return None
    return _newest(repo, _get_cache_hash(to_single_stage_lockfile(stage), key=True))


def _newest(repo: Repo, key: str) -> dict[str, Any] | None:
    """The run that DVC takes where several have the same inputs."""
    folder = Path(repo.cache.legacy.path, RUNS, key[:2], key)
    there = [path for path in folder.iterdir() if _RUN.fullmatch(f"{RUNS}/{key[:2]}/{key}/{path.name}")] if folder.is_dir() else []
    found = sorted(there, key=lambda path: path.stat().st_mtime)
    return read_entry(repo, f"{RUNS}/{key[:2]}/{key}/{found[-1].name}") if found else None


def _within(digest: HashInfo | None, inner: str, cache: Any) -> HashInfo | None:
    """The digest of a file in a folder; of the output itself where ``inner`` is empty."""
    if digest is None or not inner:
        return digest
    return next((its for key, _, its in Tree.load(cache, digest) if "/".join(key) == inner), None)
