"""What the service works with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from finsight.bootstrap.pipeline import load_params
from finsight.bootstrap.versions import MODEL_URI, bundle_folder, named_version, version_folder
from finsight.settings import load_settings

if TYPE_CHECKING:
    from finsight.ports import ModelVersion
    from finsight.service_ports import ResultCache


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


def shared_results() -> ResultCache | None:
    """Results that replicas share: in the Redis of FINSIGHT_REDIS_URL; None where that is unset."""
    address = load_settings().redis_url
    if address is None:
        return None
    from finsight.adapters.redis_results import RedisResults

    return RedisResults(address.get_secret_value())
