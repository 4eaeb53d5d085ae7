"""What the service depends on, as questions that its health asks."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from finsight.bootstrap.service import OWN
from finsight.settings import Settings, project_root

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
