"""The command that checks a machine and its configuration."""

from __future__ import annotations

import sys

import click

from finsight.command import edge

_COLOURS = {"ok": "green", "advice": "yellow", "wrong": "red"}


@click.command()
@edge
def doctor() -> None:
    """Check this machine and its configuration, and say what to do; ends with 1 if something will not work."""
    from finsight.bootstrap.doctor import CHECKS, check_up

    width, wrong = max(map(len, CHECKS)), 0
    for found in check_up():
        wrong += found.state == "wrong"
        click.echo(f"{click.style(f'{found.state:<6}', fg=_COLOURS[found.state])}  {found.subject:<{width}}  {found.said}")
    if wrong:
        sys.exit(1)
