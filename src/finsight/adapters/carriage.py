"""The way of objects between DVC's cache and a remote.

DVC's own way sends the first object alone, hashes what has arrived one after the other once it is in the cache, and passes a damaged object
over in silence. Here all travel side by side, and what arrives gets its name in the cache only when its hash is right.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dvc_data.callbacks import TqdmCallback
from dvc_data.hashfile.hash_info import HashInfo
from dvc_objects.fs import generic

from finsight.adapters.objects import Objects, absent, objects
from finsight.environment import cores
from finsight.errors import ArtifactError


def send(found: Objects, cache: Any, target: Any) -> int:
    """Copy objects from the cache to a remote; how many.

    A folder's list follows the folder's files, so that what has a list is whole.
    :raises OSError: or another error of the remote's, when an object can't be copied; the others are copied nevertheless.
    """
    with TqdmCallback(desc="Pushing", unit="file", size=len(found)) as bar:
        for folders in (False, True):
            names = [digest.value for digest in found if digest.isdir == folders]
            places = [target.oid_to_path(name) for name in names]
            for parent in {target.fs.parent(place) for place in places}:
                target.makedirs(parent)
            failed = _copy(cache.fs, [cache.oid_to_path(name) for name in names], target.fs, places, bar)
            for error in failed.values():
                raise error
    return len(found)


def bring(outs: Mapping[str, HashInfo], source: Any, cache: Any) -> tuple[int, Objects]:
    """Bring outputs from a remote into the cache; how many objects came, and which the remote does not have.

    :raises ArtifactError: when an object arrives damaged; it is thrown away.
    :raises OSError: or another error of the remote's; what came before it is kept.
    """
    count, gone = 0, Objects()
    for _ in range(2):  # the lists of folders, then what they list
        wanted = absent(objects(outs, cache), cache)
        wanted = {digest: path for digest, path in wanted.items() if digest not in gone}
        lost = _fetch(wanted, source, cache)
        gone |= lost
        count += len(wanted) - len(lost)
    return count, gone


def bring_lists(digests: Iterable[HashInfo], source: Any, cache: Any) -> None:
    """Bring the lists of folders into the cache, those that the remote (None: there is none) has."""
    if source is not None:
        _fetch(absent({digest: digest.value for digest in digests if digest.isdir}, cache), source, cache)


def _fetch(wanted: Objects, source: Any, cache: Any) -> Objects:
    """Fetch objects, each under a passing name until it is known to be whole; those that the remote does not have."""
    # The name is this process's own: another one may fetch the same object into a shared cache.
    passing = {f"{cache.oid_to_path(digest.value)}.{secrets.token_hex(4)}.partial": digest for digest in wanted}
    for folder in {str(Path(name).parent) for name in passing}:
        cache.makedirs(folder)  # with the modes of a shared cache, where it is one
    with TqdmCallback(desc="Fetching", unit="file", size=len(wanted)) as bar:
        failed = _copy(source.fs, [source.oid_to_path(digest.value) for digest in wanted], cache.fs, list(passing), bar)
    damaged = _land({name: digest for name, digest in passing.items() if name not in failed}, cache, source.verify)
    for error in failed.values():
        if not isinstance(error, FileNotFoundError):
            raise error
    for digest in damaged:
        place = source.fs.unstrip_protocol(source.oid_to_path(digest.value))
        raise ArtifactError(
            f"{wanted[digest]} arrived damaged from {place} and was thrown away; remove that object and push again from a clone that has it"
        )
    return {passing[name]: wanted[passing[name]] for name in failed}


def _land(arrived: Mapping[str, HashInfo], cache: Any, verify: bool) -> list[HashInfo]:
    """Give what has arrived its name in the cache; what is damaged is removed and returned."""
    with ThreadPoolExecutor(cores()) as pool:  # hashing lets go of the interpreter's lock
        hashes = list(pool.map(_md5, arrived)) if verify else [_stem(digest) for digest in arrived.values()]
    damaged, landed = [], []
    for (name, digest), md5 in zip(arrived.items(), hashes, strict=True):
        if md5 == _stem(digest):
            final = cache.oid_to_path(digest.value)
            Path(name).replace(final)
            cache.protect(final)
            landed.append((final, digest, None))
        else:
            Path(name).unlink()
            damaged.append(digest)
    with contextlib.suppress(sqlite3.Error):  # a memo of DVC's: on a full disk what has arrived counts without it
        cache.state.save_many(landed, cache.fs)
    return damaged


def _stem(digest: HashInfo) -> str:
    return str(digest.value).partition(".")[0]  # a folder's list is called `.dir` besides


def _copy(source: Any, paths: Sequence[str], target: Any, places: Sequence[str], bar: TqdmCallback) -> dict[str, BaseException]:
    """Copy files side by side; the places that failed."""
    failed: dict[str, BaseException] = {}
    if len(paths) == 1:
        try:
            # In one stream: DVC would read a lone file in eight ranges at once, which takes more memory and is slower from a disk.
            generic.copy(source, list(paths), target, list(places), callback=bar, batch_size=1)
        except FileNotFoundError as error:
            failed[places[0]] = error
    elif paths:
        generic.copy(
            source, list(paths), target, list(places), callback=bar, on_error=lambda _, place, error: failed.update({place: error})
        )
    return failed


def _md5(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
