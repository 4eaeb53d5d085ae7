"""S3: a client whose failures come fast and in one line, and what lies under a key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from finsight import tracing
from finsight.adapters.file_names import inside, safe_name
from finsight.adapters.traced_clients import trace_s3
from finsight.errors import DataError, UnreachableError

TRIES = 5


@contextmanager
def bucket_client(uri: str, endpoint: str | None, tries: int = TRIES) -> Iterator[Any]:
    """A boto3 client; credentials come from the environment, as for the AWS tools.

    :raises UnreachableError: in place of what boto3 raises inside the block.
    """
    with bucket_errors(uri):
        yield make_client(endpoint, tries)


@contextmanager
def bucket_errors(uri: str) -> Iterator[None]:
    """:raises UnreachableError: in place of what boto3 raises inside the block."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError, Boto3Error, ValueError) as error:
        raise UnreachableError(f"{uri}: {error}; check AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from None


def make_client(endpoint: str | None, tries: int = TRIES) -> Any:
    """A boto3 client, which takes a tenth of a second of a core; threads may share it."""
    import boto3
    from botocore.config import Config

    retries = {"total_max_attempts": tries, "mode": "standard"}
    config = Config(connect_timeout=5, retries=retries, response_checksum_validation="when_required")
    client = boto3.Session().client("s3", endpoint_url=endpoint, config=config)
    if tracing.on():
        trace_s3(client)
    return client


def fetch_objects(uri: str, folder: Path, endpoint: str | None, tries: int = TRIES) -> None:
    """Download the object ``s3://bucket/key``, or all objects below that prefix, into ``folder``.

    :raises DataError: when there is nothing, or a key is no safe file name.
    :raises UnreachableError: when the server does not answer or refuses the credentials.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    prefix = f"{key.rstrip('/')}/" if key.rstrip("/") else ""
    with bucket_client(uri, endpoint, tries) as client:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key.rstrip("/"))
        sizes = {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", [])}
        if key in sizes:
            wanted = {key: folder / safe_name(key.rpartition("/")[2].replace("%", "%25"))}
        else:
            names = [k for k in sizes if k.startswith(prefix) and not k.endswith("/")]
            wanted = {name: inside(folder, name.removeprefix(prefix), uri) for name in names}
        if not wanted:
            raise DataError(f"{uri}: no object of that key, and none below it; check the bucket and the key")
        with tqdm(total=sum(sizes[k] for k in wanted), unit="B", unit_scale=True, desc="download", disable=None) as bar:
            for name, path in wanted.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(bucket, name, str(path), Callback=bar.update)
