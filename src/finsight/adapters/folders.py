"""Folders of large files that are read in parts: on this machine, or below an ``s3://bucket/prefix``."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any

from finsight.adapters.buckets import TRIES, bucket_errors, make_client
from finsight.errors import ArtifactError
from finsight.files import atomic_file
from finsight.ports import Folder


def folder(place: str, endpoint: str | None) -> Folder:
    """The folder of that path, or below that ``s3://bucket/prefix``."""
    return S3Folder(place, endpoint) if place.startswith("s3://") else LocalFolder(Path(place))


class LocalFolder:
    """A folder of this machine, or of a file system that it has mounted."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def has(self, name: str) -> bool:
        """See :class:`finsight.ports.Folder`."""
        return (self._path / name).is_file()

    def read(self, name: str, start: int = 0, size: int | None = None) -> bytes:
        """See :class:`finsight.ports.Folder`."""
        try:
            with (self._path / name).open("rb") as file:
                file.seek(start)
                return file.read(-1 if size is None else size)
        except (FileNotFoundError, NotADirectoryError):
            raise ArtifactError(f"{self}/{name}: no such file") from None

    def write(self, name: str, source: Path) -> None:
        """See :class:`finsight.ports.Folder`."""
        with atomic_file(self._path / name) as partial:
            shutil.copyfile(source, partial)


class S3Folder:
    """Objects below a prefix of a bucket; credentials come from the environment, as for the AWS tools."""

    def __init__(self, uri: str, endpoint: str | None, tries: int = TRIES) -> None:
        self._uri, self._endpoint, self._tries = uri.rstrip("/"), endpoint, tries
        self._bucket, _, prefix = self._uri.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._made: Any = None
        self._making = threading.Lock()

    def __str__(self) -> str:
        return self._uri

    @property
    def _client(self) -> Any:
        """One for all threads: to make one takes longer than to read."""
        with self._making:
            self._made = self._made or make_client(self._endpoint, self._tries)
        return self._made

    def has(self, name: str) -> bool:
        """See :class:`finsight.ports.Folder`."""
        from botocore.exceptions import ClientError

        with bucket_errors(self._uri):
            try:
                self._client.head_object(Bucket=self._bucket, Key=self._prefix + name)
            except ClientError as error:
                if error.response["Error"]["Code"] not in ("404", "NoSuchKey"):
                    raise
                return False
            return True

    def read(self, name: str, start: int = 0, size: int | None = None) -> bytes:
        """See :class:`finsight.ports.Folder`.

        An answer that breaks off is asked for again, since a training is long and a network is not always there.
        """
        from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

        wanted, tries = f"bytes={start}-{'' if size is None else start + size - 1}", 0
        with bucket_errors(self._uri):
            while True:
                try:
                    content: bytes = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name, Range=wanted)["Body"].read()
                    return content
                except ClientError as error:
                    if (code := error.response["Error"]["Code"]) == "InvalidRange":
                        return b""
                    if code not in ("404", "NoSuchKey", "NoSuchBucket"):
                        raise
                    raise ArtifactError(f"{self._uri}/{name}: no such object") from None
                except (HTTPClientError, IncompleteReadError):
                    if (tries := tries + 1) == self._tries:
                        raise
                    time.sleep(2**tries / 2)

    def write(self, name: str, source: Path) -> None:
        """See :class:`finsight.ports.Folder`."""
        with bucket_errors(self._uri):
            self._client.upload_file(str(source), self._bucket, self._prefix + name)
