"""Where the time of a command goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

PROFILE = click.option(
    "--profile",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="Write where the time went to a file: .html, .json (speedscope), or text.",
)


@contextmanager
def profiled(file: Path | None) -> Iterator[None]:
    """Sample the main thread, in a service the event loop, a thousand times a second while the block runs; write the file in the end.

    Nothing is done where it is None.

    :raises click.BadParameter: when its folder is not there: better now than after the work.
    """
    if file is None:
        yield
        return
    if not file.absolute().parent.is_dir():
        raise click.BadParameter(f"{file}: its folder is not there", param_hint="--profile")
    from pyinstrument import Profiler
    from pyinstrument.renderers import ConsoleRenderer, HTMLRenderer, SpeedscopeRenderer

    from finsight.files import atomic_file

    renderers: dict[str, type[Any]] = {".html": HTMLRenderer, ".json": SpeedscopeRenderer}
    profiler = Profiler(async_mode="disabled")
    profiler.start()
    try:
        yield
    finally:
        profiler.stop()
        with atomic_file(file) as partial:
            partial.write_text(profiler.output(renderers.get(file.suffix, ConsoleRenderer)()), encoding="utf-8")
        click.echo(f"{file}: where the time went", err=True)
