"""Files below a prefix of a bucket."""

from __future__ import annotations

import functools
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from finsight.adapters.buckets import TRIES, bucket_errors, make_client
from finsight.errors import DataError
from finsight.shard_ports import FileFacts

_BUFFER = 2**20  # bytes that a small read fetches at once
_MISSING = ("404", "NoSuchKey", "NotFound")


@dataclass(frozen=True, slots=True)
class S3Files:
    """See :class:`finsight.shard_ports.FileStore`. An object is there with its last byte, or not at all.

    :param uri: ``s3://bucket/prefix``.
    :param endpoint: of the server; None for AWS.
    """

    uri: str
    endpoint: str | None

    @property
    def place(self) -> str:
        """See :class:`finsight.shard_ports.FileStore`."""
        return self.uri.rstrip("/")

    @property
    def _bucket(self) -> str:
        return self.uri.removeprefix("s3://").partition("/")[0]

    @property
    def _prefix(self) -> str:
        key = self.place.removeprefix("s3://").partition("/")[2]
        return f"{key}/" if key else ""

    def files(self) -> dict[str, FileFacts]:
        """See :class:`finsight.shard_ports.FileStore`."""
        found = {}
        with self._client() as client:
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix):
                for one in page.get("Contents", []):
                    if not one["Key"].endswith("/"):  # what some consoles make for a folder
                        name = one["Key"].removeprefix(self._prefix)
                        found[name] = _facts(one["Size"], one)
        return found

    def facts(self, name: str) -> FileFacts | None:
        """See :class:`finsight.shard_ports.FileStore`."""
        about = self._head(name)
        return None if about is None else _facts(about["ContentLength"], about)

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """See :class:`finsight.shard_ports.FileStore`."""
        about = self._head(name)
        if about is None:
            raise DataError(f"{self.place}/{name}: no such object")
        raw = _Ranges(_shared(self.endpoint), self._bucket, self._prefix + name, about["ContentLength"], about["ETag"])
        with io.BufferedReader(raw, _BUFFER) as file:
            yield file

    def read(self, name: str, start: int = 0, size: int | None = None) -> bytes:
        """See :class:`finsight.shard_ports.FileStore`."""
        from botocore.exceptions import ClientError

        if size == 0:  # there is no range of nothing
            return b""
        wanted = f"bytes={start}-{'' if size is None else start + size - 1}"
        with self._client() as client:
            try:
                return _range(client, wanted, Bucket=self._bucket, Key=self._prefix + name)[0]
            except ClientError as error:
                if (code := error.response["Error"]["Code"]) == "InvalidRange":
                    return b""
                if code not in _MISSING:
                    raise
                raise DataError(f"{self.place}/{name}: no such object") from None

    def _head(self, name: str) -> Any:
        from botocore.exceptions import ClientError

        with self._client() as client:
            try:
                return client.head_object(Bucket=self._bucket, Key=self._prefix + name)
            except ClientError as error:
                if error.response["Error"]["Code"] not in _MISSING:
                    raise
                return None

    @contextmanager
    def _client(self) -> Iterator[Any]:
        with bucket_errors(self.uri):
            yield _shared(self.endpoint)

    def put(self, name: str, content: bytes) -> None:
        """See :class:`finsight.shard_ports.FileStore`."""
        with self._client() as client:
            client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=content)

    def remove(self, name: str) -> None:
        """See :class:`finsight.shard_ports.FileStore`."""
        with self._client() as client:
            client.delete_object(Bucket=self._bucket, Key=self._prefix + name)


def _facts(size: int, about: Any) -> FileFacts:
    # To the second, as heads of HTTP have it and lists need not.
    return FileFacts(size, int(about["LastModified"].timestamp()) * 10**9)


@functools.lru_cache(4)
def _shared(endpoint: str | None) -> Any:
    """A client that a process makes once: a data set may have ten thousand files."""
    return make_client(endpoint)


def _range(client: Any, wanted: str, **which: str) -> tuple[bytes, str]:
    """Some bytes of an object, and the version they are of. An answer that breaks off is asked for again, which boto3 leaves to us."""
    from botocore.exceptions import HTTPClientError, IncompleteReadError

    tries = 0
    while True:
        answer = client.get_object(**which, Range=wanted)
        try:
            return answer["Body"].read(), answer["ETag"]
        except (HTTPClientError, IncompleteReadError):
            if (tries := tries + 1) == TRIES:
                raise
            time.sleep(2**tries / 2)


class _Ranges(io.RawIOBase):
    """An object that is read range by range; of one version, for parts of two would make a file that never was."""

    def __init__(self, client: Any, bucket: str, key: str, size: int, version: str) -> None:
        self._client, self._which, self._size, self._version = client, {"Bucket": bucket, "Key": key}, size, version
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        where = "s3://{Bucket}/{Key}".format(**self._which)
        with bucket_errors(where):
            found, version = _range(self._client, f"bytes={self._at}-{end - 1}", **self._which)
        if version != self._version:
            raise DataError(f"{where}: changed while it was read; run the command again")
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)
