"""The development S3 server."""

from __future__ import annotations

import configparser
import os
import secrets
import shutil
import sys
from pathlib import Path

import click

from finsight.adapters.child import run_child
from finsight.errors import FinsightError, ParamsError
from finsight.files import atomic_file

BUCKET = "finsight"


def serve_s3(root: Path, address: str) -> None:
    """Serve the folders below ``root`` as buckets, with rclone, until interrupted.

    The key is made at the first start and kept for DVC in ``.dvc/config.local``, which git ignores.
    """
    rclone = shutil.which("rclone", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if rclone is None:
        raise FinsightError("rclone is not installed; `make setup` installs it, or point the minio remote at a MinIO or S3 of yours")
    key, secret = _development_key()
    (root / BUCKET).mkdir(parents=True, exist_ok=True)
    click.echo(f"S3 on http://{address}, bucket {BUCKET}, key in .dvc/config.local; `make push` and `make pull` use it, Ctrl-C stops it")
    click.echo("another clone on this machine needs the same .dvc/config.local, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    # The key goes through the environment (where rclone reads CSV): a command line is visible to every user of the machine.
    environment = {**os.environ, "RCLONE_AUTH_KEY": f'"{key},{secret}"'}
    code = run_child([rclone, "serve", "s3", "--addr", address, str(root)], environment)
    if code:
        raise FinsightError(f"rclone ended with {code}; is {address} taken? its own message stands above")


def _development_key() -> tuple[str, str]:
    path = Path(".dvc/config.local")
    section = "'remote \"minio\"'"  # DVC's spelling of the section
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read(path)
    except configparser.Error as error:
        raise ParamsError(f"{path}: {' '.join(str(error).split())}; correct it or remove it") from None
    if not config.has_section(section):
        config.add_section(section)
    if not (config.has_option(section, "access_key_id") and config.has_option(section, "secret_access_key")):
        config[section].update({"access_key_id": f"dev{secrets.token_hex(8)}", "secret_access_key": secrets.token_urlsafe(30)})
        with atomic_file(path) as partial:
            partial.touch(mode=0o600)
            with partial.open("w", encoding="utf-8") as file:
                config.write(file)
    return config.get(section, "access_key_id"), config.get(section, "secret_access_key")
