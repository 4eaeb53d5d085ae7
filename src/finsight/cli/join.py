"""Taking part in a training that another machine leads."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from finsight.command import edge


@click.command()
@edge
def join() -> None:
    """Train as a further machine of a run: the stage `train` alone, whose outputs appear on the first.

    FINSIGHT_LAUNCH (or train.launch) says which machine this is, and where the first one waits. It needs the same commit and
    prepared data: `dvc repro prepare` before.
    """
    from finsight.params.file import load_yaml

    command = shlex.split(load_yaml(Path("dvc.yaml"))["stages"]["train"]["cmd"])
    os.execvp(command[0], command)  # noqa: S606 - signals, output and exit status are the stage's own
