"""What the service depends on, as questions that its health asks; and whether workers live."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from finsight.bootstrap.service import OWN
from finsight.settings import Settings, load_settings, project_root

Questions = Mapping[str, Callable[[], str]]
"""By the name of a dependency, what answers in a few words, or raises a FinsightError; each may take its time."""


def questions(settings: Settings, redis: str) -> Questions:
    """Those of the settings.

    :param redis: address of the Redis in use.
    """
    from finsight.adapters import dependencies

    own = project_root() / OWN
    if settings.objects:
        objects = partial(dependencies.bucket_answers, settings.objects, settings.s3_endpoint)
    else:
        objects = partial(dependencies.folder_takes, own / "objects")
    return {
        "redis": partial(dependencies.redis_answers, redis),
        "mlflow": partial(dependencies.mlflow_answers, settings.tracking_uri()),
        "objects": objects,
        "gpu": dependencies.gpu_answers,
        "disk": partial(dependencies.disk_has, (own, Path(tempfile.gettempdir())), settings.max_upload),  # an upload has to fit
    }


def sign_of_life(stop: Callable[[], bool]) -> AbstractContextManager[Callable[[], bool]]:
    """What a worker asks whether to stop, as a sign that it lives; see :mod:`finsight.adapters.heartbeat`."""
    from finsight.adapters.heartbeat import beating

    return beating(project_root() / OWN / "workers", stop)


def workers_health(ready: bool) -> str:
    """Who works in this clone on this host.

    :param ready: whether their Redis has to answer, too.
    :raises FinsightError: when nobody does, one hangs, or the Redis does not answer.
    """
    from finsight.adapters.heartbeat import alive

    found = ", ".join(alive(project_root() / OWN / "workers"))
    if not ready:
        return f"{found}: alive"
    from finsight.adapters.dependencies import redis_answers

    given = load_settings().redis_url
    return f"{found}: ready" + (f", {redis_answers(given.get_secret_value())}" if given else ", with the Redis of its service")
