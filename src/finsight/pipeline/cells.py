"""Texts of others, shown as texts: in a spreadsheet, in Markdown, in a terminal."""

from __future__ import annotations

import html
import re

# What a spreadsheet takes for a formula (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
# Platforms look for addresses and names after they have read the entities: only what stands apart is none.
_LINKED = re.compile(r"[@#]|:(?=//)|www(?=\.)", re.IGNORECASE)
_APART = "\u200b"  # a space without width


def plain(cell: str) -> str:
    """The cell with a leading apostrophe where a spreadsheet would run it; rows are matched by ``hash``, never by what this shows."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def markdown(text: str) -> str:
    """The text in one line of Markdown that shows it as it is, without links, mentions or markup."""
    apart = _LINKED.sub(lambda found: found[0] + _APART, " ".join(text.split()))
    return "".join(f"&#{ord(c)};" if c in "|`*_[]@#~\\!" else c for c in html.escape(apart, quote=False))


def printable(text: str) -> str:
    """The text in one line without what a terminal would take for a command."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))


def shortened(text: str, most: int) -> str:
    """The text, or its beginning, in that many characters at most."""
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 2]} …"
