"""Texts of others in CSV files that people open with a spreadsheet."""

from __future__ import annotations

# What a spreadsheet takes for a formula (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def plain(cell: str) -> str:
    """The cell with a leading apostrophe where a spreadsheet would run it; rows are matched by ``hash``, never by what this shows."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
