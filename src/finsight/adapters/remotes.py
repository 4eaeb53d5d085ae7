"""A DVC remote, opened in this process: DVC's own progress bars, and one line for each way to fail."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ProfileNotFound, SSLError
from dvc.config import ConfigError
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc_objects.errors import ObjectFormatError

from finsight.adapters.network import no_answer
from finsight.errors import FinsightError, ParamsError, UnreachableError

FAILURES = (DvcException, ConfigError, OSError, BotoCoreError, ClientError, ObjectFormatError)
# rclone answers ranges without the checksums that botocore asks for by default; MinIO and S3 are indifferent.
CHECKSUMS = {"AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required", "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required"}
AGAIN = "run it again: what has been transferred stays and is not transferred twice"


class Heard(logging.Handler):
    """The errors that DVC only logs: it goes on with the next object after a failed one, and says at the end how many failed."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.errors: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the error that a record carries."""
        if record.exc_info and record.exc_info[1]:
            self.errors.append(record.exc_info[1])


@contextmanager
def listening() -> Iterator[Heard]:
    """DVC's messages go to the returned handler while the block runs, and nowhere else."""
    heard, loggers = Heard(), [logging.getLogger(name) for name in ("dvc", "dvc_data", "dvc_objects")]
    before = [(logger, logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [heard], False
    try:
        yield heard
    finally:
        for logger, handlers, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate


@contextmanager
def here() -> Iterator[Repo]:
    """The repository of this folder; what DVC says inside is raised as one line."""
    with listening() as heard:
        try:
            with Repo() as repo:
                yield repo
        except FAILURES as error:
            raise FinsightError(_first(heard.errors[0] if heard.errors else error)) from error


@contextmanager
def opened(remote: str) -> Iterator[Repo]:
    """The repository of this folder, for work with a remote that answers; a failure inside is raised as one line.

    :raises ParamsError: when .dvc/config has no such remote, or says something that can't be.
    :raises UnreachableError: when the remote does not answer, refuses the key, or has no such bucket.
    """
    for name, value in CHECKSUMS.items():
        os.environ.setdefault(name, value)
    settings: Mapping[str, Any] = {}
    with listening() as heard:
        try:
            with Repo() as repo:
                settings = _settings(repo, remote)
                _greet(repo, remote, settings)
                yield repo
        except FAILURES as error:
            raise explained(remote, settings, heard.errors[0] if heard.errors else error) from error


def _settings(repo: Repo, remote: str) -> Mapping[str, Any]:
    remotes: Mapping[str, Mapping[str, Any]] = repo.config["remote"]
    if remote not in remotes:
        raise ParamsError(f"remote {remote!r} is not in .dvc/config (there: {', '.join(sorted(remotes))}); add it with `dvc remote add`")
    return remotes[remote]


def _greet(repo: Repo, remote: str, settings: Mapping[str, Any]) -> None:
    """Find out at once what would else come up after minutes of attempts, once for each object."""
    endpoint = settings.get("endpointurl")
    if endpoint and (problem := no_answer(endpoint)):
        raise UnreachableError(f"remote {remote} at {endpoint}: {problem}; start it (`make storage`) or set its endpointurl")
    far = repo.cloud.get_remote(remote)
    if far.fs.protocol == "s3":
        far.fs.fs.call_s3("head_bucket", Bucket=far.path.split("/")[0])


def explained(remote: str, settings: Mapping[str, Any], error: BaseException) -> FinsightError:
    """What a failure means, where, and what to do about it."""
    where = f"remote {remote} at {settings.get('endpointurl') or settings.get('url', '?')}"
    chain = list(_causes(error))
    if any(isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT) for cause in chain):
        return FinsightError(f"no space left on the device for what {where} has; free some, then {AGAIN}")
    refusal = _refusal(remote, settings, chain)
    return UnreachableError(f"{where}: {refusal}") if refusal else FinsightError(f"{where}: {_first(error)}")


def _refusal(remote: str, settings: Mapping[str, Any], chain: list[BaseException]) -> str | None:
    """Why a server does not do what it is asked for, and what to do; None where it is not the server's doing."""

    def among(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in chain)

    if among(SSLError) or any("CERTIFICATE_VERIFY_FAILED" in str(cause) for cause in chain):
        file = f"`dvc remote modify --local {remote} ssl_verify FILE.pem`"
        return f"its certificate is of no authority known here; name the authority's file by {file} or AWS_CA_BUNDLE"
    authority = settings.get("ssl_verify")
    if isinstance(authority, str) and not Path(authority).exists():
        return (
            f"ssl_verify names {authority}, which does not exist; correct it with `dvc remote modify --local {remote} ssl_verify FILE.pem`"
        )
    if among(ProfileNotFound):
        return f"{_first(chain[0])}; `dvc remote modify --local {remote} profile NAME` names one of ~/.aws/config"
    if among(NoCredentialsError):
        return f"no key is set; {_key(remote)}"
    if among(PermissionError) and among(ClientError):
        return f"it refuses the key ({_first(chain[0])}); {_key(remote)}"
    if any(isinstance(cause, ClientError) and cause.operation_name == "HeadBucket" and _missing(cause) for cause in chain):
        return f"it has no bucket {str(settings.get('url', '')).split('/')[2]}; make it there, or correct the remote's url"
    if among(BotoCoreError, ConnectionError, TimeoutError):
        return f"it stopped answering ({_first(chain[0])}); {AGAIN}"
    return None


def _missing(error: ClientError) -> bool:
    return str(error.response.get("Error", {}).get("Code")) in ("404", "NoSuchBucket")


def _key(remote: str) -> str:
    return (
        f"set it with `dvc remote modify --local {remote} access_key_id …` and secret_access_key, "
        "or in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )


def _first(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
