"""Writes the pages that the code itself says: docs/configuration.md and docs/commands.md. `make docs` runs it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from schemas import cell, sections, variables  # noqa: E402  # beside this file, wherever it is run from

from finsight.cli import main  # noqa: E402

CONFIGURATION = """\
# Configuration

`params.yaml` has every parameter of a model; the environment has what differs between machines. This page is written by
docs/generate.py from the schemas in `src/finsight/params` and the settings in `src/finsight/settings.py`.

## params.yaml

Change a key in the file, or for one experiment with `dvc exp run -S train.lr=3.0e-5`. A key that is unknown or missing, or a value
that it does not take, is refused before any stage works. Keys of `corpora.NAME` and `backbones.NAME` may have defaults, which are
shown; of all others the shipped value is. `train.focal`, `swa`, `awp` and `adapt` are off in a file that is older than they are.
"""

ENVIRONMENT = """
## Environment

Values are checked when they are read. Secrets come from the environment, or from the file that a
variable of the same name with `_FILE` behind it names; never from a file in git: [security](security.md#secrets).

| variable | default | meaning |
|---|---|---|"""

COMMANDS = """\
# Commands

What `finsight … --help` says, on one page; it is written by docs/generate.py. Every command also takes `--debug`: a traceback in
place of one line."""


def configuration() -> str:
    """docs/configuration.md."""
    out = [CONFIGURATION]
    for title, what, keys in sections():
        out += [f"### {title}", "", *([what, ""] if what else []), "| key | value | takes | meaning |", "|---|---|---|---|"]
        out += [*(f"| `{key.name}` | {key.value} | {key.takes} | {key.meaning} |" for key in keys), ""]
    out[-1:] = [ENVIRONMENT]
    out += [f"| `{name}` | {default} | {meaning} |" for name, default, meaning in variables()]
    return "\n".join(out) + "\n"


def commands(group: click.Group = main, path: str = "finsight") -> Iterator[tuple[str, click.Command]]:
    """Every command by what one types, those that people don't type left out."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        elif not command.hidden:
            yield f"{path} {name}", command


def command_reference() -> str:
    """docs/commands.md."""
    out = [COMMANDS]
    for name, command in commands():
        context = click.Context(command, info_name=name)
        usage = f"{name} {' '.join(command.collect_usage_pieces(context))}"
        out += ["", f"## {name}", "", *inspect.cleandoc(command.help or "").replace("\b\n", "").splitlines(), "", "```text", usage, "```"]
        records = [record for param in command.get_params(context) if (record := param.get_help_record(context))]
        everywhere = ("--debug", "--help", "-h, --help")
        if rows := [f"| `{cell(names)}` | {cell(text)} |" for names, text in records if text and not names.startswith(everywhere)]:
            out += ["", "| option | |", "|---|---|", *rows]
    return "\n".join(out) + "\n"


PAGES = {"configuration.md": configuration, "commands.md": command_reference}

if __name__ == "__main__":
    for page, written in PAGES.items():
        (HERE / page).write_text(written())
