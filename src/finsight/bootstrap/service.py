"""What the service keeps in Redis and beside it, and whom it believes: chosen by the settings."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from finsight.bootstrap.pipeline import load_params
from finsight.bootstrap.versions import MODEL_URI, bundle_folder, named_version, version_folder
from finsight.domain.artifacts import Bounds
from finsight.errors import ParamsError
from finsight.settings import Settings, load_settings, project_root

if TYPE_CHECKING:
    from finsight.adapters.jobs import RepositoryJobs
    from finsight.adapters.oidc import Claims
    from finsight.ports import ModelVersion
    from finsight.service_ports import (
        ArtifactStore,
        AuditLog,
        FailedAttempts,
        JobQueue,
        KeyStore,
        ResultCache,
        SigningKeys,
        Tickets,
        TokenIssuer,
        Windows,
    )

WAYS = frozenset({"key", "token", "oidc"})
OWN = Path(".service")
"""What the service keeps in its project's folder: Redis, inputs and results of scorings, studies."""


@dataclass(frozen=True, slots=True)
class CredentialStores:
    """Where credentials are kept."""

    keys: KeyStore
    signing: SigningKeys
    tickets: Tickets
    failures: FailedAttempts


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


def credential_stores(url: str, settings: Settings, token_lifetime: int) -> CredentialStores:
    """Stores in the Redis at ``url``.

    :param token_lifetime: seconds that a token may be good, leeway included.
    :raises ParamsError: when the address or the encryption key is none, or that Redis drops what it should keep.
    """
    from finsight.adapters.redis_connection import connect, refuse_forgetful
    from finsight.adapters.redis_failures import RedisFailures
    from finsight.adapters.redis_keys import RedisKeys
    from finsight.adapters.redis_signing import RedisSigningKeys
    from finsight.adapters.redis_tickets import RedisTickets

    client = connect(url)
    refuse_forgetful(client)
    encryption = settings.encryption_key.get_secret_value() if settings.encryption_key else None
    signing = RedisSigningKeys(client, token_lifetime, encryption)
    return CredentialStores(RedisKeys(client), signing, RedisTickets(client), RedisFailures(client))


def ways_in(settings: Settings, host: str) -> frozenset[str]:
    """The ways of FINSIGHT_AUTH; none of them where it is ``off``.

    :param host: where the service is going to listen.
    :raises ParamsError: when one is unknown, or authentication is off where others could reach the service.
    """
    named = frozenset(one.strip() for one in settings.auth.lower().split(",") if one.strip())
    if named == {"off"}:
        if not loopback(host):
            raise ParamsError(f"FINSIGHT_AUTH=off: {host} can be reached from other machines; listen on 127.0.0.1, or unset it")
        return frozenset()
    if not named or not named <= WAYS:
        raise ParamsError(f"FINSIGHT_AUTH: got {settings.auth!r}; expected off, or some of key, token and oidc separated by commas")
    return named


def loopback(host: str) -> bool:
    """Whether a service that listens there is reached from this machine alone."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host or None, 0, flags=socket.AI_PASSIVE)}
    except (OSError, UnicodeError):
        return False
    return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found)


def token_issuer(settings: Settings, ways: frozenset[str]) -> TokenIssuer | None:
    """The external issuer of the settings, for bearer tokens; None where there is none, its way is closed, or only the page uses it.

    :raises ParamsError: when its audience is lacking, or its keys would come over an open network.
    """
    name = issuer_of(settings) if "oidc" in ways else None
    if name is None or (settings.oidc_client_id and not settings.oidc_audience):
        return None
    if not settings.oidc_audience:
        raise ParamsError("FINSIGHT_OIDC_AUDIENCE: unset; without it a token for any other service of the issuer would be taken")
    from finsight.adapters.oidc import OidcIssuer

    return OidcIssuer(name, claims_of(settings))


def issuer_of(settings: Settings) -> str | None:
    """The issuer's address; None where none is set.

    :raises ParamsError: when its keys would come over an open network.
    """
    if not settings.oidc_issuer:
        return None
    address = urlsplit(settings.oidc_issuer)
    if not address.hostname or not (address.scheme == "https" or (address.scheme == "http" and loopback(address.hostname))):
        raise ParamsError(f"FINSIGHT_OIDC_ISSUER: got {settings.oidc_issuer!r}; expected https://…")
    return settings.oidc_issuer


def claims_of(settings: Settings) -> Claims:
    """What to look for in the issuer's tokens."""
    from finsight.adapters.oidc import Claims

    return Claims(settings.oidc_audience or "", settings.oidc_roles_claim, settings.oidc_tenant_claim, settings.oidc_tenant)


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
