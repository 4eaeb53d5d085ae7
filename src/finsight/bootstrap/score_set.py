"""The scoring of a data set: which stores it lies in, who works on it, and with what."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from finsight import located, runtime
from finsight.adapters.bundle_classifier import on_gpu
from finsight.bootstrap.pipeline import file_store
from finsight.bootstrap.pools import worker_pool
from finsight.bundle import bundle_digest, read_bundle
from finsight.errors import ArtifactError, DataError, GateError
from finsight.pipeline import score_set as use_case
from finsight.pipeline.predict import Model
from finsight.pipeline.score import Scored, added_names
from finsight.pipeline.score_parts import MadeOf, parquet_files
from finsight.shard_ports import FileFacts, FileStore

_S3, _PARQUET = "s3://", ".parquet"


def score_set(
    source: str,
    target: str,
    column: str,
    bundle: Path,
    graph: str,
    engine: str,
    address: str | None,
    workers: int | None,
    progress: Callable[[str, int, int | None], None],
) -> Scored:
    """See :func:`finsight.pipeline.score_set.score_set`.

    :param source: folder or ``s3://bucket/prefix`` of Parquet files, or one such file; ``target`` likewise, but no file.
    :param bundle: a folder, or ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``, which each worker fetches.
    :param graph: the format that all workers compute with.
    :param engine: ``local`` or ``ray``.
    """
    given, files, one = source_files(source)
    out = target_store(target, given, one is not None)
    folder = located(bundle)
    manifest, digest = read_bundle(folder), bundle_digest(folder)
    made_of = MadeOf(f"{given.place}/{one}" if one else given.place, column, digest, graph)
    place = str(bundle) if str(bundle).startswith("models:/") else str(folder.resolve())
    with worker_pool(engine, address, workers, on_gpu(graph)) as pool:
        opened = partial(open_model, place, digest, graph, pool.cores)
        added = added_names(manifest.labels, bool(manifest.polarity))
        return use_case.score_set(given, files, out, made_of, added, pool, opened, progress)


def open_model(bundle: str, digest: str, graph: str, threads: int) -> Model:
    """In a worker: the bundle that its driver means.

    :raises ArtifactError: when it is not on this machine.
    :raises GateError: when it is another one.
    """
    host = socket.gethostname()
    folder = located(bundle)
    if not folder.is_dir():
        raise ArtifactError(f"{bundle}: not there on {host}, where a worker runs; put it on a shared folder, or name models:/NAME/VERSION")
    if bundle_digest(folder) != digest:
        raise GateError(f"{bundle}: is another bundle on {host}, where a worker runs; name models:/NAME/VERSION")
    return runtime.model(folder, graph, threads)


def source_files(address: str) -> tuple[FileStore, dict[str, FileFacts], str | None]:
    """A store, its files that are meant, and the name of the only one where one was named.

    :raises DataError: when nothing of Parquet is there.
    """
    here = not address.startswith(_S3)
    if here and not Path(address).exists():
        raise DataError(f"{address}: no such file or folder")
    if address.endswith(_PARQUET) and not (here and Path(address).is_dir()):
        folder, name = (str(Path(address).parent), Path(address).name) if here else address.rsplit("/", 1)
        store = file_store(folder)
        if about := store.facts(name):
            return store, {name: about}, name
    elif here and Path(address).is_file():
        raise DataError(f"{address}: a data set is of .parquet files; convert it, or name a file as OUT and no --engine or --workers")
    store = file_store(address)
    return store, parquet_files(store), None


def target_store(address: str, source: FileStore, one_file: bool) -> FileStore:
    """Where parts go.

    :param one_file: whether all that is read is one file of ``source``, beside whose folder they may lie then.
    :raises DataError: when it can't take parts.
    """
    if not address.startswith(_S3) and (Path(address).is_file() or Path(address).suffix in (".csv", ".jsonl", _PARQUET)):
        raise DataError(f"{address}: a data set is written to a folder or s3://BUCKET/PREFIX; name one")
    store = file_store(address)
    if f"{store.place}/".startswith(f"{source.place}/") and (not one_file or store.place == source.place):
        raise DataError(f"{address}: lies in what is read; write to another place")
    return store
