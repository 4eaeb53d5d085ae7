"""Commands that keep what the service keeps, and put it back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import click

from finsight.command import PATH, edge
from finsight.settings import load_settings


@click.command()
@click.argument("folder", type=PATH)
@edge
def backup(folder: Path) -> None:
    """Write a file into FOLDER with what service and registry keep: keys, queue, audit log, MLflow's database, and folders of this clone.

    The service may run meanwhile, if FINSIGHT_REDIS_URL names its Redis. Encrypted where FINSIGHT_ENCRYPTION_KEY is set. Of an MLflow
    server, and of buckets, make backups by their own means.
    """
    from finsight.bootstrap.backup import backup

    settings = load_settings()
    path, names = backup(settings, folder)
    click.secho(f"{path}: {_parts(names)}, {path.stat().st_size / 1e6:.1f} MB", fg="green")
    if not settings.encryption_key:
        click.secho("FINSIGHT_ENCRYPTION_KEY is not set: it is in the clear; put it where nobody else reads", fg="yellow", err=True)
    if not settings.tracking_uri().startswith("sqlite"):
        click.secho("MLflow is a server: its database and artifacts are not in it", fg="yellow", err=True)
    if settings.objects:
        click.secho("FINSIGHT_OBJECTS is a bucket: inputs and results of scorings are not in it", fg="yellow", err=True)


@click.command()
@click.argument("file", type=PATH)
@click.option("--replace", is_flag=True, help="Remove what is there; nothing is restored over something otherwise.")
@click.option("--check", is_flag=True, help="Only decrypt it and compare every digest in it; nothing is changed.")
@edge
def restore(file: Path, replace: bool, check: bool) -> None:
    """Put back what `finsight backup` wrote, where the same settings say, and walk the audit log. Stop services and workers before.

    All of it is checked before anything is changed. Ends with 3 when it is restored and the audit log in it does not hold.
    """
    from finsight.bootstrap.backup import contained, restore

    if check:
        click.secho(f"{file} is whole: {_parts(contained(load_settings(), file))}", fg="green")
        return
    names, records = restore(load_settings(), file, replace)
    click.secho(f"{file} restored: {_parts(names)}; {records} records of the audit log hold", fg="green")


def _parts(names: Iterable[str]) -> str:
    """``redis, database, mlruns (12 files)``."""
    found = Counter(name.partition("/")[0] for name in names)
    return ", ".join(part if part in ("redis", "database") else f"{part} ({files} files)" for part, files in found.items())
