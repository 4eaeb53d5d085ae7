"""A scoring as a job's command: an input of the service's storage in, its result out."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from finsight import located, runtime
from finsight.adapters.jobs import scoring_folder
from finsight.bootstrap.service import artifact_store
from finsight.bundle import bundle_digest
from finsight.errors import FinsightError, GateError, UnreachableError
from finsight.events import say
from finsight.files import atomic_file, sha256
from finsight.pipeline.score import Scored, score
from finsight.service_ports import ArtifactStore
from finsight.settings import project_root

_SOURCE, _TARGET = "input.csv", "scored.csv"
_KEPT = 2 * 24 * 3600  # seconds that what a killed run has left is kept, where its job was ended without a worker


def score_object(tenant: str, name: str, column: str, result: str, bundle: str, digest: str) -> Scored | None:
    """Score an input of a tenant's and keep the result; None where there is one already.

    It works in a folder of its own, named after the result, where a run goes on that was killed. What can't be mended by trying again
    leaves nothing there; what its worker ends for good neither.

    :param bundle: folder, or ``models:/NAME/VERSION``.
    :param digest: that the bundle has to have.
    :raises GateError: when it has another.
    :raises DataError: when the input is gone, or can't be scored.
    """
    store = artifact_store()
    say("stage", stage="score")
    if store.size(tenant, result) is not None:
        return None
    model = located(bundle).resolve()
    if bundle_digest(model) != digest:
        raise GateError(
            "the bundle that was asked for is not the one here; start the service again where it was exported anew, then ask again"
        )
    folder = scoring_folder(project_root(), result)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _clear(folder)
    try:
        _fetch(store, tenant, name, folder / _SOURCE)
        os.chdir(folder)  # what is wrong with the file is told by its name, not by where it lies here
        opened = runtime.model(model)
        found = score(Path(_SOURCE), Path(_TARGET), column, opened, f"{digest} {opened.format}", _Progress())
        store.put(tenant, result, folder / _TARGET)
    except UnreachableError:
        raise  # the next attempt goes on from here
    except FinsightError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    return found


class _Progress:
    def __init__(self) -> None:
        self._done = 0

    def __call__(self, what: str, rows: int, of: int | None) -> None:
        if what == "scored":
            self._done += rows
            say("progress", step=self._done, steps=of)


def _fetch(store: ArtifactStore, tenant: str, name: str, path: Path) -> None:
    if not (path.is_file() and sha256(path) == Path(name).stem):
        with atomic_file(path) as partial, partial.open("wb") as file:
            file.writelines(store.read(tenant, name))


def _clear(own: Path) -> None:
    for folder in own.parent.iterdir():
        with suppress(FileNotFoundError):
            if folder != own and time.time() - folder.stat().st_mtime > _KEPT:
                shutil.rmtree(folder, ignore_errors=True)
