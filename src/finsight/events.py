"""What a command says of itself to whoever started it and follows: lines of JSON in the file that FINSIGHT_EVENTS names.

The standard library alone, since any stage may say something; where the variable is unset nothing is said.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

VARIABLE = "FINSIGHT_EVENTS"


def followed() -> bool:
    """Whether anybody listens."""
    return bool(os.environ.get(VARIABLE))


def say(event: str, **content: Any) -> None:
    """Add a line, with a question mark for half a character. One that can't be written is left out: work does not fail
    because nobody can be told of it."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    line = json.dumps({"type": event, **content}, ensure_ascii=False) + "\n"
    try:
        with Path(path).open("a", encoding="utf-8", errors="replace") as file:
            file.write(line)  # one write, so that lines of several processes don't mix
    except OSError:
        return
