"""What the service keeps in Redis and beside it: chosen by the settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from finsight.bootstrap.pipeline import load_params
from finsight.bootstrap.versions import MODEL_URI, bundle_folder, named_version, version_folder
from finsight.domain.artifacts import Bounds
from finsight.errors import ParamsError
from finsight.settings import Settings, load_settings, project_root

if TYPE_CHECKING:
    from finsight.adapters.jobs import RepositoryJobs
    from finsight.ports import ModelVersion
    from finsight.service_ports import ArtifactStore, AuditLog, JobQueue, ResultCache, Windows

OWN = Path(".service")
"""What the service keeps in its project's folder: Redis, inputs and results of scorings, studies."""


@contextmanager
def redis(settings: Settings) -> Iterator[str]:
    """The address of the Redis of the settings; of one of the service's own, for as long as the block runs, where none is set.

    :raises UnreachableError: when that one does not start.
    """
    if settings.redis_url:
        yield settings.redis_url.get_secret_value()
        return
    from finsight.adapters.redis_server import embedded

    with embedded(project_root() / OWN / "redis") as address:
        yield address


def windows(settings: Settings, redis: str | None = None) -> Windows:
    """Limits as FINSIGHT_LIMITS has them, counted in Redis, or in this process alone.

    :raises ParamsError: when the setting is wrong.
    """
    from finsight.adapters.redis_connection import connect
    from finsight.adapters.windows import LeasedWindows, SlidingWindows, amounts

    wanted = amounts(settings.limits)
    return LeasedWindows(SlidingWindows(wanted, connect(redis, text=False))) if redis else SlidingWindows(wanted)


def audit_log(settings: Settings, redis: str) -> AuditLog:
    """The audit log, encrypted where FINSIGHT_ENCRYPTION_KEY is set.

    :raises ParamsError: when the key is none.
    """
    from finsight.adapters.redis_audit import RedisAuditLog
    from finsight.adapters.redis_connection import connect
    from finsight.adapters.sealing import Seal

    key = settings.encryption_key
    return RedisAuditLog(connect(redis, text=False), Seal(key.get_secret_value()) if key else None)


def follows(bundle: Path) -> bool:
    """Whether a service of ``bundle`` has to look now and then what it is: it names an alias."""
    return str(bundle).startswith(MODEL_URI) and "@" in str(bundle)


def version_now(bundle: Path) -> ModelVersion | None:
    """The version that ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` names now; None for a folder.

    :raises DataError: when there is none.
    """
    return champion(bundle) if str(bundle).startswith(MODEL_URI) else None


def champion(bundle: Path) -> ModelVersion:
    """The version that an alias points to now.

    :raises DataError: when there is none.
    """
    return named_version(str(bundle))[1]


def checked_folder(bundle: Path, version: ModelVersion | None) -> Path:
    """The folder of a bundle, or of the version that it named; what FINSIGHT_REQUIRE_SIGNATURE asks of it is checked.

    :raises ArtifactError: when it is not what was registered, or its signature not what is asked.
    """
    return bundle_folder(bundle) if version is None else version_folder(load_params(), version)


def memory_results() -> ResultCache:
    """Results that this process keeps."""
    from finsight.adapters.memory_results import MemoryResults

    return MemoryResults()


def shared_results(settings: Settings) -> ResultCache | None:
    """Results that replicas share: in the Redis of FINSIGHT_REDIS_URL; None where that is unset."""
    address = settings.redis_url
    if address is None:
        return None
    from finsight.adapters.redis_results import RedisResults

    return RedisResults(address.get_secret_value())


@contextmanager
def job_queue(redis: str | None = None) -> Iterator[JobQueue]:
    """The queue of jobs, on the Redis of an address, or of the settings.

    :raises ParamsError: when there is no address, or it is none.
    """
    from finsight.adapters.redis_queue import RedisQueue

    given = load_settings().redis_url
    address = redis or (given.get_secret_value() if given else None)
    if address is None:
        raise ParamsError("FINSIGHT_REDIS_URL: not set; name the Redis of the service (`finsight serve` starts a worker of its own)")
    queue = RedisQueue(address)
    try:
        yield queue
    finally:
        queue.close()


def artifact_store() -> ArtifactStore:
    """Where inputs and results of scorings are kept: the bucket of FINSIGHT_OBJECTS, or a folder of this clone.

    :raises ParamsError: when it names something else.
    """
    from finsight.adapters.folder_artifacts import FolderArtifacts
    from finsight.adapters.s3_artifacts import S3Artifacts

    settings = load_settings()
    bounds = Bounds(settings.objects_days, settings.objects_size)
    if not settings.objects:
        return FolderArtifacts(project_root() / OWN / "objects", bounds)
    if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]+(/.*)?", settings.objects):
        raise ParamsError(f"FINSIGHT_OBJECTS: got {settings.objects!r}; expected s3://bucket/prefix, or nothing for a folder of this clone")
    return S3Artifacts(settings.objects, settings.s3_endpoint, bounds)


def repository_jobs(
    bundle: Path = Path("models/bundle"), store: ArtifactStore | None = None, served: Callable[[], tuple[str, int | None]] | None = None
) -> RepositoryJobs:
    """Orders and their work in this clone; see :class:`finsight.adapters.jobs.RepositoryJobs`."""
    from finsight.adapters.jobs import RepositoryJobs

    settings = load_settings()
    return RepositoryJobs(project_root(), store or artifact_store(), bundle, settings.experiments_remote, settings.job_seconds, served)


def gpus() -> list[str]:
    """GPUs that a worker here may give to its jobs."""
    from finsight.adapters import gpus

    return gpus.gpus()
