"""What the tests of the pages share: code blocks and links of Markdown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from conftest import REPO

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w{}-]*)\n(?P<code>.*?)^(?P=indent)```\s*$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A code block, and the heading that it stands under."""

    heading: str
    language: str
    code: str


def pages() -> list[Path]:
    """Every page that people read."""
    return [
        *sorted((REPO / "docs").rglob("*.md")),
        REPO / "README.md",
        REPO / "CONTRIBUTING.md",
        REPO / "CHANGELOG.md",
        REPO / "data/README.md",
    ]


def blocks(text: str) -> Iterator[Block]:
    """Fenced and indented ones."""
    for found in _FENCE.finditer(text):
        headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", text[: found.start()]), re.MULTILINE)
        code = re.sub(rf"^{found['indent']}", "", found["code"], flags=re.MULTILINE)
        yield Block(headings[-1] if headings else "", found["language"], code)
    for indented in re.findall(r"(?:\A|\n)\n((?: {4}[^\n]*\n|\n(?= {4}))+)", _FENCE.sub("", text)):
        yield Block("", "", re.sub(r"^ {4}", "", indented, flags=re.MULTILINE))


def prose(text: str) -> str:
    """The text without its code blocks."""
    return _FENCE.sub("", text)


class Command(NamedTuple):
    """A command line, without what a shell takes out of it.

    :param whole: whether it could be typed so; code within a line may just name a command.
    """

    words: list[str]
    whole: bool


def commands(text: str) -> Iterator[Command]:
    """Each `finsight`, `make` and `dvc` of code blocks and of code within lines."""
    shell = [re.sub(r"\\\n\s*", " ", block.code) for block in blocks(text) if block.language in ("", "sh")]
    lines = [(line, True) for code in shell for line in code.splitlines()]
    lines += [(code, False) for code in re.findall(r"`([^`\n]+)`", prose(text)) if "…" not in code]
    for line, whole in lines:
        for part in re.split(r"\s(?:&&|\|\||[|;])\s", re.split(r"\s#\s|\s+←", line)[0]):
            words = _words(part)
            if words[:1] in (["finsight"], ["make"], ["dvc"]) and words[1:]:
                yield Command(words, whole)


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(re.sub(r"\s[<>]\s*\S+", "", command))
    except ValueError:  # an apostrophe: no command, or one that does not end in its line
        return []
    while words and re.match(r"[A-Z_]+=", words[0]):
        del words[0]
    return [word.removeprefix(".venv/bin/") for word in words[:1]] + words[1:]
