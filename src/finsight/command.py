"""The edge that stages and CLI share: one line for an error of the user's, a traceback only under --debug."""

from __future__ import annotations

import errno
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click

from finsight import tracing
from finsight.environment import quiet
from finsight.errors import FinsightError, StoppedError, UnreachableError
from finsight.events import say

PATH = click.Path(path_type=Path)
_NO_SPAN = ("serve", "worker", "storage", "mlflow", "run-experiment")  # they have their own, and the last becomes another program


@contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
    """While the block runs, SIGTERM and Ctrl-C only raise a flag that the work asks for; a second one ends the process."""
    caught: list[int] = []

    def note(number: int, _: object) -> None:
        caught.append(number)
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def edge(main: Callable[..., None]) -> Callable[..., None]:
    """Give a click command ``--debug``, and turn what users can cause into one line on stderr and an exit code."""

    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @functools.wraps(main)
    def run(*args: Any, debug: bool, **kwargs: Any) -> None:
        quiet()
        try:
            with _traced(), _watched(kwargs.get("report")):
                main(*args, **kwargs)
        except BrokenPipeError:
            raise  # whoever read has had enough, as `head` has; click ends quietly
        except (FinsightError, OSError) as error:
            say("error", error=describe(error), passing=isinstance(error, (UnreachableError, StoppedError, OSError)))
            if debug:
                raise
            click.secho(f"error: {describe(error)}", fg="red", err=True)
            sys.exit(error.exit_code if isinstance(error, FinsightError) else 1)

    return run


@contextmanager
def _watched(report: Path | None) -> Iterator[None]:
    """Where the settings say so, let Prometheus know how a stage of the pipeline went; processes that train together are one run."""
    script = Path(sys.argv[0])
    wanted = os.environ.get("FINSIGHT_METRICS_DIR") or os.environ.get("FINSIGHT_PUSHGATEWAY")
    if script.parent.name != "stages" or not wanted or "LOCAL_RANK" in os.environ:
        yield
        return
    from finsight.adapters.stage_metrics import measured, receivers
    from finsight.settings import load_settings, project_root

    settings = load_settings()
    folder = project_root() / settings.metrics_dir if settings.metrics_dir else None  # not the copy of an experiment
    warnings: list[str] = []
    try:
        with measured(script.stem, report, receivers(folder, settings.pushgateway), warnings):
            yield
    finally:
        for warning in warnings:
            click.secho(f"warning: {warning}; the stage itself is not touched by that", fg="yellow", err=True)


def _traced() -> AbstractContextManager[None]:
    """A stage or a command is a span; services have one for each thing that they do."""
    context = click.get_current_context(silent=True)
    name = context.info_name if context and context.info_name else ""
    if name in _NO_SPAN:
        return nullcontext()
    stage = name.removesuffix(".py")
    return tracing.process("stage", f"stage {stage}") if stage != name else tracing.process("cli", f"finsight {name}")


def describe(error: FinsightError | OSError) -> str:
    """An error in one line."""
    if isinstance(error, FinsightError):
        return " ".join(str(error).split())
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "No space left" in str(error):
        return f"{where}no space left on the device; nothing was left half-written: free some space and run again"
    return f"{where}{error.strerror or ' '.join(str(error).split())}; check the path and its permissions"
