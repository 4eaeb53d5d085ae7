"""Inputs and results of scorings in a bucket, which all replicas and workers share."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

from finsight.adapters.buckets import bucket_client
from finsight.domain.artifacts import Bounds, Kept, place, surplus
from finsight.errors import DataError

BLOCK = 2**18  # bytes that are read at a time
_MOST = 1000  # objects that are deleted in one request: S3's own limit
_LOG = logging.getLogger("finsight.service")
_NONE = ("404", "NoSuchKey", "NotFound")


class S3Artifacts:
    """See :class:`finsight.service_ports.ArtifactStore`.

    :param uri: ``s3://bucket/prefix``.
    :param endpoint: of the server; None for AWS.
    """

    def __init__(self, uri: str, endpoint: str | None, bounds: Bounds = Bounds()) -> None:  # noqa: B008  (frozen)
        self._uri, self._endpoint, self._bounds = uri, endpoint, bounds
        self._bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix.rstrip('/')}/" if prefix.rstrip("/") else ""

    def put(self, tenant: str, name: str, source: Path) -> None:
        """See :class:`finsight.service_ports.ArtifactStore`."""
        here = place(tenant, name)
        with self._client() as client:
            client.upload_file(str(source), self._bucket, self._prefix + here)
            going = list(surplus(self._kept(client), self._bounds, time.time(), here))
            for start in range(0, len(going), _MOST):
                objects = [{"Key": self._prefix + one} for one in going[start : start + _MOST]]
                done = client.delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})
                for error in done.get("Errors", [])[:1]:
                    _LOG.warning(
                        "%s: what is too old or too much can't be deleted (%s); allow s3:DeleteObject", self._uri, error.get("Code")
                    )

    def size(self, tenant: str, name: str) -> int | None:
        """See :class:`finsight.service_ports.ArtifactStore`."""
        key = self._prefix + place(tenant, name)
        with self._client() as client:
            found = _found(client.head_object, Bucket=self._bucket, Key=key)
            return None if found is None else int(found["ContentLength"])

    def read(self, tenant: str, name: str) -> Iterator[bytes]:
        """See :class:`finsight.service_ports.ArtifactStore`."""
        key = self._prefix + place(tenant, name)
        with self._client() as client:
            found = _found(client.get_object, Bucket=self._bucket, Key=key)
            if found is None:
                raise DataError(f"there is no object {name}; upload it first")
            with closing(found["Body"]) as body:
                yield from body.iter_chunks(BLOCK)

    def _client(self) -> AbstractContextManager[Any]:
        return bucket_client(self._uri, self._endpoint)

    def _kept(self, client: Any) -> Iterator[Kept]:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix):
            for one in page.get("Contents", []):
                yield Kept(one["Key"].removeprefix(self._prefix), one["Size"], one["LastModified"].timestamp())


def _found(ask: Any, **what: str) -> Any:
    """What S3 answers; None where there is no such object."""
    from botocore.exceptions import ClientError

    try:
        return ask(**what)
    except ClientError as error:
        if error.response["Error"]["Code"] in _NONE:
            return None
        raise
