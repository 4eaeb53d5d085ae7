"""What the service reads and releases, from the registry, the tracker, git and the reports of this clone."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finsight.bootstrap.pipeline import load_params, registry, tracker
from finsight.errors import ArtifactError, DataError, FinsightError, GateError, ParamsError
from finsight.files import read_json
from finsight.settings import project_root

if TYPE_CHECKING:
    from finsight.params.file import Params
    from finsight.ports import ModelVersion
    from finsight.service_ports import ExperimentLog, Sessions, Tried

COMPARE_SECONDS, TRACE_SECONDS = 120.0, 300.0
WORKSPACE = "workspace"
_APART = "finsight.bootstrap.apart"
_READ = ("report.html", "model_card.md", "metrics.json")
_KEPT = 16  # versions whose reports stay in memory, half a megabyte each


class PromotionError(GateError):
    """A version is not promoted.

    :param failures: what keeps it from that, one by one.
    """

    def __init__(self, message: str, failures: list[str]) -> None:
        super().__init__(message)
        self.failures = failures


def versions() -> list[ModelVersion]:
    """Every version, oldest first."""
    return registry(_params()).versions()


def audit_log() -> list[Mapping[str, str]]:
    """The audit log of the registry, oldest first."""
    return registry(_params()).audit()


def promote(version: str, alias: str, who: str, why: str, force: bool) -> str:
    """Promote a version as `finsight models promote` does; what to tell.

    :param who: for the audit log.
    :raises PromotionError: when a gate fails, or nothing can be compared, or its licence forbids the alias.
    """
    from finsight.pipeline import models

    params, failed = _params(), list[str]()

    def judge(holder: ModelVersion, candidate: ModelVersion) -> tuple[dict[str, Any], list[str]]:
        try:
            found = _apart("gate", COMPARE_SECONDS, holder=str(holder.number), version=str(candidate.number))
        except FinsightError as error:
            failed.append(f"it can't be compared with version {holder.number}: {error}")
            raise
        failed.extend(found["failures"])
        return found["comparison"], found["failures"]

    try:
        return models.promote(registry(params), version, alias, judge, params.register_.commercial_aliases, who, why, force)
    except GateError as error:
        if not failed:
            raise PromotionError(str(error), [str(error)]) from None
        # The use case's own words end with what to type on a command line.
        said = f"version {version} is not promoted to {alias}: {'; '.join(failed)}; force with a reason promotes it all the same"
        raise PromotionError(said, failed) from None


def rollback(alias: str, who: str, why: str) -> str:
    """Let an alias point to the version before, as `finsight models rollback` does; what to tell."""
    from finsight.pipeline import models

    params = _params()
    return models.rollback(registry(params), alias, params.register_.commercial_aliases, who, why)


def report(version: ModelVersion, name: str) -> bytes:
    """A report of a version: report.html, model_card.md or metrics.json.

    :raises DataError: when its run does not have it.
    """
    from finsight.pipeline.run_record import STATEMENT_TAG

    try:
        return _reports(version.run, version.tags.get(STATEMENT_TAG, ""))[name]
    except (ArtifactError, KeyError):
        raise DataError(f"version {version.number}: its run has no {name}; `dvc repro register` sends it, where it was made") from None


@functools.lru_cache(_KEPT)
def _reports(run: str, statement: str) -> dict[str, bytes]:  # noqa: ARG001 - a run whose reports are sent anew gets another statement
    from finsight.pipeline.run_record import REPORTS_ARTIFACT

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "reports"
        folder.mkdir()
        tracker(_params()).fetch(run, REPORTS_ARTIFACT, folder)
        return {name: (folder / name).read_bytes() for name in _READ if (folder / name).is_file()}


def trace(version: ModelVersion) -> dict[str, Any]:
    """See :func:`finsight.bootstrap.apart.trace`.

    :raises DataError: when its run has no statement that can be read.
    """
    try:
        return _apart("trace", TRACE_SECONDS, version=str(version.number))
    except ArtifactError as error:
        raise DataError(f"version {version.number}: {error}") from None


def experiment_log() -> ExperimentLog:
    """The experiments of this clone."""
    from finsight.adapters.git_experiments import GitExperiments

    return GitExperiments(project_root())


def workspace() -> Tried:
    """The parameters and metrics that lie in the workspace."""
    from finsight.params.file import dotted, load_yaml
    from finsight.service_ports import Tried

    root = project_root()
    path = root / "reports/metrics.json"
    return Tried(dotted(load_yaml(root / "params.yaml")), dotted(read_json(path, "dvc repro")) if path.is_file() else {})


def resolve(name: str) -> list[str]:
    """A side of a comparison as what neither git nor MLflow can take for anything else, behind its name: ``workspace``, the number of a
    version, the digits of an experiment's commit.

    :param name: ``workspace``, the number of a version, the name of an experiment, or an alias.
    :raises DataError: when there is none of that name.
    """
    if name == WORKSPACE:
        return [name, name]
    commit = None if name.isdigit() else next((one.commit for one in experiment_log().all() if one.name == name), None)
    return [name, commit or str(_find(name).number)]


def compare(base: list[str], new: list[str]) -> dict[str, Any]:
    """See :func:`finsight.bootstrap.apart.compare`.

    :param base: as :func:`resolve` gives it.
    :raises DataError: when one has no predictions, or the two can't be compared.
    """
    return _apart("compare", COMPARE_SECONDS, base=base, new=new)


def _find(name: str) -> ModelVersion:
    from finsight.pipeline.models import find

    return find(versions(), name)


def validation() -> dict[str, Any]:
    """The last report of the stage ``validate``.

    :raises DataError: when there is none.
    """
    path = project_root() / "reports/validation.json"
    if not path.is_file():
        raise DataError("the data were not validated here yet; `dvc repro validate` does it")
    return read_json(path, "dvc repro validate")


def _apart(name: str, seconds: float, **given: Any) -> dict[str, Any]:
    from finsight.adapters import apart

    return apart.call(_APART, name, given, seconds, project_root())


def model_name() -> str:
    """The registered model of this clone; empty where params.yaml is missing or wrong, which every route about the registry says."""
    try:
        found = Path("params.yaml").stat()
    except OSError:
        return ""
    return _model_name(found.st_mtime_ns, found.st_size)


@functools.lru_cache(1)
def _model_name(*_stamp: int) -> str:
    try:
        return _params().register_.model
    except FinsightError:
        return ""


def _params() -> Params:
    """params.yaml of this clone; what is wrong with it is no fault of whoever asks the service."""
    try:
        return load_params()
    except ParamsError as error:
        raise FinsightError(str(error)) from None


def sessions(address: str) -> Sessions:
    """Sessions in a Redis."""
    from finsight.adapters.redis_sessions import RedisSessions

    return RedisSessions(address)
