"""Commands about the service's audit log."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from finsight.command import PATH, edge
from finsight.settings import load_settings


@click.group()
def audit() -> None:
    """What was done and refused at the service, in the Redis of FINSIGHT_REDIS_URL, or in the service's own while it is stopped."""


@audit.command()
@click.option(
    "--anchor",
    type=PATH,
    help="File that keeps where the chain ended, to be checked next time; keep it where who can write to Redis can't. Made when missing.",
)
@edge
def verify(anchor: Path | None) -> None:
    """Walk the chain from its beginning, and name the first record that was changed, removed, moved or slipped in. Ends with 3 then."""
    from finsight.bootstrap import service
    from finsight.domain.audit import Head, check
    from finsight.errors import GateError
    from finsight.files import read_json, write_json

    known = None
    if anchor and anchor.exists():
        content = read_json(anchor, "finsight audit verify --anchor")
        known = Head(int(content["number"]), str(content["digest"]))
    settings = load_settings()
    with service.redis(settings) as redis:
        log = service.audit_log(settings, redis)
        written = log.written()  # before the records: those that come meanwhile are no tail that is missing
        head, problem = check(log.records(), written, known)
    if problem:
        raise GateError(f"audit log: {problem}; the {head.number} before hold")
    click.secho(f"{head.number} records hold; the last is {head.number} {head.digest}", fg="green")
    if anchor:
        write_json(anchor, asdict(head))
    else:
        click.echo("without --anchor a log that was written anew as a whole holds too")


@audit.command()
@click.option("-n", "--number", type=click.IntRange(1), default=20, show_default=True, help="How many of the newest.")
@click.option("--json", "as_json", is_flag=True, help="All of them, oldest first, a JSON object a line, to be kept elsewhere.")
@edge
def show(number: int, as_json: bool) -> None:
    """Print the newest records, newest first."""
    from finsight.bootstrap import service

    settings = load_settings()
    with service.redis(settings) as redis:
        log = service.audit_log(settings, redis)
        if as_json:
            for record in log.records():
                click.echo(json.dumps(asdict(record)))
            return
        for record in log.latest(None, number):
            entry = record.entry
            if entry is None:
                click.secho(f"{record.number:>6}  can't be read", fg="red")
                continue
            who = f"{entry.tenant}/{entry.who}" if entry.who else "unknown"
            more = f" and {entry.repeats} more" if entry.repeats else ""
            told = f"{entry.outcome} {entry.status}{more}  {who}  {entry.action}  {entry.resource}  {entry.address}  {entry.correlation_id}"
            click.echo(f"{record.number:>6}  {entry.when}  {told}")
