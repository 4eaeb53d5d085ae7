"""What a DVC output consists of: its objects in the cache and in a remote, by digest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import voluptuous
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree
from dvc_objects.errors import ObjectFormatError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from finsight.errors import ArtifactError

Objects = dict[HashInfo, str]
"""Digests, each with a path that it stands for."""


def outputs(entry: Mapping[str, Any], key: str = "outs") -> dict[str, HashInfo]:
    """The outputs of a stage in dvc.lock, or of an entry of the run cache, by path; with ``deps`` for ``key`` what it was made from."""
    return {out["path"]: HashInfo("md5", out["md5"]) for out in entry.get(key, []) if "md5" in out}


def locked_stages(text: str) -> list[dict[str, Any]]:
    """The stages that the text of a dvc.lock lists.

    :raises ArtifactError: when it is none.
    """
    try:
        content = COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe").load(text)) if text.strip() else {}
    except (YAMLError, voluptuous.Invalid) as error:
        raise ArtifactError(f"a dvc.lock that is none: {' '.join(str(error).split())[:200]}") from None
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
    if store.fs.protocol == "local":
        there = {name for name in names if store.exists(name)}  # the bulk query below would hash what is not write-protected
    else:
        there = set(store.oids_exist(names)) if names else set()
    return {digest: path for digest, path in found.items() if digest.value not in there}


def damaged(found: Objects, cache: Any) -> Objects:
    """Those that the cache has under their name and that are something else by now; DVC takes them out of the cache.

    As it does, one that is write-protected is taken for whole.
    """
    wrong = Objects()
    for digest, path in found.items():
        if cache.exists(digest.value):
            try:
                cache.check(digest.value)
            except ObjectFormatError:
                wrong[digest] = path
    return wrong
