"""What a job's work is in a repository: `dvc exp run`, `finsight tune`, a scoring. There is no second training path."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finsight.adapters import git
from finsight.adapters.experiment_copies import ExperimentCopy
from finsight.adapters.job_process import plain_environment
from finsight.bundle import bundle_digest
from finsight.domain.artifacts import INPUT, scored
from finsight.domain.jobs import Job, Kind, Order
from finsight.errors import DataError, GateError, ParamsError
from finsight.files import sha256
from finsight.params.file import Params
from finsight.params.overrides import hydra, with_overrides
from finsight.service_ports import ArtifactStore, Ending, Outcome

_REPORT = {Kind.VALIDATE: "reports/validation.json", Kind.TRAIN: "reports/train.json"}
_COPIES = Path(".dvc/tmp/finsight-jobs")
_KEPT = 2 * 86_400.0  # seconds; another worker here may let its jobs take longer than this one
_COLUMN = re.compile(r"\w[\w .-]{0,99}")
_MODEL = re.compile(r"models:/[^@/]+")


@dataclass(frozen=True, slots=True)
class Work:
    """How a job is run.

    :param commands: one after the other; the next is asked for only where the ones before ended well.
    :param found: what came of it, once all have.
    :param cleared: removes what they have left behind.
    :param seconds: that it may take.
    :param given_up: removes what is kept for another attempt, once there will be none.
    """

    commands: Iterable[Sequence[str]]
    cwd: Path
    environment: Mapping[str, str]
    found: Callable[[], Outcome] = lambda: Outcome(Ending.SUCCEEDED)
    cleared: Callable[[], None] = lambda: None
    seconds: float = 24 * 3600.0
    given_up: Callable[[], None] = lambda: None


class RepositoryJobs:
    """Orders and their work in one clone.

    :param store: of inputs and results.
    :param bundle: what scorings predict with: a folder, or ``models:/NAME@ALIAS``.
    :param remote: git remote that experiments are pushed to; empty: none.
    :param seconds: that a job may take.
    :param served: digest and version of the bundle that a scoring ordered now predicts with; the one in the folder where it is None.
    """

    def __init__(
        self,
        root: Path,
        store: ArtifactStore,
        bundle: Path = Path("models/bundle"),
        remote: str = "",
        seconds: float = 24 * 3600.0,
        served: Callable[[], tuple[str, int | None]] | None = None,
    ) -> None:
        self._root, self._store, self._bundle, self._remote, self._seconds = root.resolve(), store, str(bundle), remote, seconds
        self._served = served or (lambda: (bundle_digest(self._root / bundle), None))

    def order(self, kind: Kind, parameters: Mapping[str, Any], tenant: str, owner: str) -> Order:
        """An order that can be done here.

        :raises ParamsError: when a parameter is not one of this kind's, or has a value that can't be.
        :raises GateError: when the tree has changes that are not committed, or a corpus in use is not: an experiment would not see it.
        :raises DataError: when the object that is to be scored is not there.
        """
        if kind is Kind.SCORE:
            name, column = _input(parameters)
            if self._store.size(tenant, name) is None:
                raise DataError(f"input: there is no object {name}; upload it first")
            digest, version = self._served()
            inputs = {"bundle": digest} | ({"version": str(version)} if version else {})
            return Order(kind, {"input": name, "text": column}, tenant, owner, "", inputs)
        params = with_overrides(git.committed(self._root, "params.yaml"), kind, parameters)
        check_committed(self._root, params)
        inputs = {}
        if kind is Kind.TUNE:  # it works on the data that lies in the clone
            lock = self._root / "dvc.lock"
            inputs = {"dvc.lock": sha256(lock) if lock.is_file() else ""}
        return Order(kind, dict(parameters), tenant, owner, git.revision(self._root), inputs)

    def work(self, job: Job) -> Work:
        """The work of an order, which may have been taken elsewhere and long ago.

        :raises FinsightError: when it can't be done here, as :meth:`order` does; or no more.
        """
        order = job.order
        if order.kind is Kind.SCORE:
            return self._score(order)
        self._forget(_name(job), job.attempt)
        now = self.order(order.kind, order.parameters, order.tenant, order.owner)
        if now.content != order.content:
            raise GateError(f"the repository has moved from {order.revision[:12]} to {now.revision[:12]} since, or its data has; ask again")
        match order.kind:
            case Kind.TUNE:
                return self._tune(job)
            case _:
                return self._experiment(job)

    def _experiment(self, job: Job) -> Work:
        name = _name(job)
        # Of each attempt its own: one that has lost its lease may not have heard of it yet.
        copy = ExperimentCopy(self._root, self._root / _COPIES / f"{name}.{job.attempt}", name)
        overrides = [f"{key}={hydra(value)}" for key, value in job.order.parameters.items()]

        def commands() -> Iterator[Sequence[str]]:
            # Where there is one, an attempt came to its end, and its worker to its own before it could say so.
            if not git.experiment(self._root, name):
                yield copy.command(job.order.revision, overrides, [str(job.order.kind)])
                copy.brought()
            if self._remote and git.experiment(self._root, name):
                yield [sys.executable, "-m", "dvc", "--wait-for-lock", "exp", "push", self._remote, name]

        def found() -> Outcome:
            commit = git.experiment(self._root, name)
            if commit is None:
                return Outcome(Ending.BROKEN, f"`dvc exp run` ended well, and there is no experiment {name}")
            return Outcome(Ending.SUCCEEDED, metrics=self._metrics(commit, job.order.kind), experiment=name)

        return Work(commands(), self._root, plain_environment(), found, copy.clear, self._seconds)

    def _forget(self, name: str, attempt: int) -> None:
        """Remove the copies of killed attempts: earlier ones at this experiment, and those that no worker here has taken up again."""
        for folder in (self._root / _COPIES).glob("*"):
            with suppress(FileNotFoundError):
                number = folder.suffix[1:]
                earlier = folder.stem == name and number.isdecimal() and int(number) < attempt
                if earlier or time.time() - folder.stat().st_mtime > max(2 * self._seconds, _KEPT):
                    shutil.rmtree(folder, ignore_errors=True)

    def _metrics(self, commit: str, kind: Kind) -> dict[str, float]:
        text = git.show(self._root, commit, _REPORT.get(kind, "reports/metrics.json"))
        content = json.loads(text) if text else {}
        return {key: value for key, value in content.items() if isinstance(value, (int, float)) and not isinstance(value, bool)}

    def _tune(self, job: Job) -> Work:
        study = self._root / ".service/studies" / f"{job.id}.db"
        trials = [word for key, value in job.order.parameters.items() for word in (f"--{key.removeprefix('tune.')}", str(value))]
        command = [sys.executable, "-m", "finsight.cli", "tune", "--study", str(study), *trials]
        return Work([command], self._root, plain_environment(), seconds=self._seconds)

    def _score(self, order: Order) -> Work:
        name, column = _input(order.parameters)
        result, version = scored(order.content), order.inputs.get("version")
        bundle = self._bundle
        if version and (model := _MODEL.match(bundle)):
            bundle = f"{model[0]}/{version}"  # what the alias named when it was asked
        words = [order.tenant, name, column, result, bundle, order.inputs["bundle"]]
        command = [sys.executable, "-m", "finsight.cli", "score-object", "--", *words]
        folder = scoring_folder(self._root, result)

        def found() -> Outcome:
            return Outcome(Ending.SUCCEEDED, result=result)

        def given_up() -> None:
            shutil.rmtree(folder, ignore_errors=True)

        return Work([command], self._root, plain_environment(), found, given_up=given_up, seconds=self._seconds)


def _name(job: Job) -> str:
    """The name of a job's experiment."""
    return f"job-{job.id[:12]}"


def check_committed(root: Path, params: Params) -> None:
    """Make sure that what an experiment sees is what lies in the clone.

    :raises GateError: when a file that shapes the result is changed and not committed, or a corpus in use is in no commit.
    """
    if changed := git.uncommitted(root):
        raise GateError(f"{', '.join(changed[:3])}: changed and not committed; commit first, so that the result says what it came from")
    for name in (*params.ingest.corpora, *params.ingest.unlabelled):
        path = Path(params.corpora[name].path)
        pointers = [f"{place}.dvc" for place in (path, *path.parents) if place.name]
        if not git.tracked(root, str(path), *pointers):
            raise GateError(f"corpus {name}: {path}.dvc is not committed, so no experiment would see its files; `git add` and commit it")


def scoring_folder(root: Path, result: str) -> Path:
    """Where a scoring works: its input and what is done of it stay there from one attempt to the next."""
    return root / ".service/scoring" / Path(result).stem


def _input(parameters: Mapping[str, Any]) -> tuple[str, str]:
    """The object that is to be scored, and the column of its texts."""
    if unknown := sorted(parameters.keys() - {"input", "text"}):
        raise ParamsError(f"{', '.join(unknown)}: no parameter of score; allowed: input, text")
    name, column = parameters.get("input"), parameters.get("text", "text")
    if not isinstance(name, str) or not INPUT.fullmatch(name):
        raise ParamsError("input: expected the id of an object that was uploaded: 64 hexadecimal digits and .csv")
    if not isinstance(column, str) or not _COLUMN.fullmatch(column):
        raise ParamsError("text: expected the name of a column, of letters, digits, spaces, dots and hyphens, with none of these first")
    return name, column
