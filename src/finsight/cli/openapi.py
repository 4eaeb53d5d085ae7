"""The command that shows what the service answers."""

from __future__ import annotations

import json

import click

from finsight.command import edge


@click.command()
@edge
def openapi() -> None:
    """Print the OpenAPI document of the service, to make a client from; nothing has to run."""
    from finsight.service.app import described

    click.echo(json.dumps(described(), indent=2, ensure_ascii=False))
