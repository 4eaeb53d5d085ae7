"""Taking part in a training that another machine leads."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from finsight.command import edge
from finsight.errors import ParamsError


@click.command()
@edge
def join() -> None:
    """Train as a further machine of a run: the stage `train` alone, whose outputs appear on the first.

    FINSIGHT_LAUNCH (or train.launch) says which machine this is, and where the first one waits. It needs the same commit and
    prepared data: `dvc repro prepare` before.
    """
    from finsight import bootstrap
    from finsight.params.file import load_yaml

    if not bootstrap.recipe(bootstrap.load_params()).launch.node_rank:
        raise ParamsError(
            "train.launch: this is the first machine, on which `dvc repro` trains; on a further one "
            "set FINSIGHT_LAUNCH=nodes=2,node_rank=1,rendezvous=HOST:PORT of the first"
        )
    command = shlex.split(load_yaml(Path("dvc.yaml"))["stages"]["train"]["cmd"])
    os.execvp(command[0], command)  # noqa: S606 - signals, output and exit status are the stage's own
