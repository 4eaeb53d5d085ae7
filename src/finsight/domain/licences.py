"""What the licences of corpora and backbones allow."""

from __future__ import annotations

import re
from collections.abc import Mapping

# SPDX writes NC as a part of its own (CC-BY-NC-SA-4.0, PolyForm-Noncommercial-1.0.0); model and data cards write it out.
_FORBIDS = re.compile(r"(?<![a-z])nc(?![a-z])|non[ -]?commercial|(research|academic)[ -](use[ -])?only", re.IGNORECASE)


def non_commercial(licences: Mapping[str, str]) -> dict[str, str]:
    """Those that forbid commercial use.

    :param licences: what is licensed (``corpus phrasebank``, ``backbone``) → its licence, an SPDX identifier or in words.
    """
    return {name: licence for name, licence in licences.items() if _FORBIDS.search(licence)}


def in_words(licences: Mapping[str, str]) -> str:
    """Which of them forbid commercial use, in words; empty where none does."""
    return ", ".join(f"{name} ({licence})" for name, licence in non_commercial(licences).items())
