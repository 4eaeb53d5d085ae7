"""What a DVC output consists of, its objects by digest, and their way between the cache and a remote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dvc_data.callbacks import TqdmCallback
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree
from ruamel.yaml import YAML

from finsight.errors import ArtifactError

Objects = dict[HashInfo, str]
"""Digests, each with a path that it stands for."""


def outputs(entry: Mapping[str, Any]) -> dict[str, HashInfo]:
    """The outputs of a stage in dvc.lock, or of an entry of the run cache, by path."""
    return {out["path"]: HashInfo("md5", out["md5"]) for out in entry.get("outs", []) if "md5" in out}


def locked_stages(text: str) -> list[dict[str, Any]]:
    """The stages that the text of a dvc.lock lists."""
    content = YAML(typ="safe").load(text) or {}
    return list(content.get("stages", {}).values())


def objects(outs: Mapping[str, HashInfo], cache: Any) -> Objects:
    """Every object of some outputs, a folder's files among them as far as the cache has the folder's list."""
    found: Objects = {}
    for path, digest in outs.items():
        found[digest] = path
        if digest.isdir and cache.exists(digest.value):
            found |= {inner: f"{path}/{'/'.join(key)}" for key, _, inner in Tree.load(cache, digest)}
    return found


def absent(found: Objects, store: Any) -> Objects:
    """Those that a cache or a remote does not have."""
    names = [digest.value for digest in found]
    # A remote is asked for its list, or once for each, whichever is less; on a disk that would hash what is there.
    there = {name for name in names if store.exists(name)} if store.fs.protocol == "local" else set(store.oids_exist(names)) if names else set()
    return {digest: path for digest, path in found.items() if digest.value not in there}


def carry(found: Objects, source: Any, target: Any, verb: str) -> int:
    """Copy objects from a cache to a remote or back; how many were copied.

    A folder's list follows the folder's files, so that what has a list is whole. What arrives in a cache from a remote with ``verify``
    is hashed, and thrown away where the hash differs.
    :raises OSError: or another error of the store's, when an object can't be copied; the others are copied nevertheless.
    """
    errors: list[BaseException] = []
    with TqdmCallback(desc=verb, unit="file", size=len(found)) as bar:
        for folders in (False, True):
            names = [digest.value for digest in found if digest.isdir == folders]
            if names:
                target.add(
                    [source.oid_to_path(name) for name in names],
                    source.fs,
                    names,
                    check_exists=False,
                    callback=bar,
                    on_error=lambda _, error: errors.append(error),
                    verify=source.verify,
                )
            if errors:
                raise errors[0]
    return len(found)


def bring(outs: Mapping[str, HashInfo], source: Any, cache: Any) -> tuple[int, Objects]:
    """Bring outputs from a remote into the cache; how many objects came, and which the remote does not have.

    :raises ArtifactError: when an object arrived damaged; it is thrown away.
    """
    count, gone = 0, Objects()
    for _ in range(2):  # the lists of folders, then what they list
        lacking = absent(objects(outs, cache), cache)
        gone = absent(lacking, source)
        wanted = {digest: path for digest, path in lacking.items() if digest not in gone}
        count += carry(wanted, source, cache, "Fetching")
        for digest, path in absent(wanted, cache).items():
            place = source.fs.unstrip_protocol(source.oid_to_path(digest.value))
            raise ArtifactError(
                f"{path} arrived damaged from {place} and was thrown away; remove that object and push again from a clone that has it"
            )
    return count, gone
