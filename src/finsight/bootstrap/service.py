"""What the service and its workers work with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from finsight.errors import ParamsError
from finsight.settings import load_settings, project_root

if TYPE_CHECKING:
    from finsight.adapters.jobs import RepositoryJobs
    from finsight.service_ports import JobQueue

OWN = Path(".service")
"""What the service keeps in its project's folder: Redis, inputs and results of scorings, studies."""


@contextmanager
def job_queue(redis: str | None = None) -> Iterator[JobQueue]:
    """The queue of jobs, on the Redis of an address, or of the settings.

    :raises ParamsError: when there is no address.
    """
    from finsight.adapters.redis_queue import RedisQueue

    given = load_settings().redis_url
    address = redis or (given.get_secret_value() if given else None)
    if address is None:
        raise ParamsError("FINSIGHT_REDIS_URL: not set; name the Redis of the service (`finsight serve` starts a worker of its own)")
    try:
        queue = RedisQueue(address)
    except ValueError:
        raise ParamsError("FINSIGHT_REDIS_URL: no address of a Redis; expected redis://, rediss:// or unix://") from None
    try:
        yield queue
    finally:
        queue.close()


def repository_jobs(bundle: Path = Path("models/bundle")) -> RepositoryJobs:
    """Orders and their work in this clone."""
    from finsight.adapters.jobs import RepositoryJobs

    root, settings = project_root(), load_settings()
    return RepositoryJobs(root, root / OWN / "objects", bundle, settings.experiments_remote, settings.job_seconds)


def gpus() -> list[str]:
    """GPUs that a worker here may give to its jobs."""
    from finsight.adapters.gpus import gpus

    return gpus()
