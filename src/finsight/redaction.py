"""What logs and traces must not show: secrets, and the texts that clients send.

A secret is known by its form, or because it is the value of a variable that holds one. An error's words are shown where they are our own,
written to be read by whoever made it; a library's may repeat what it was given. FINSIGHT_LOG_TEXTS=true shows those, too.
"""

from __future__ import annotations

import os
import re
import traceback
from functools import cache
from typing import Any

from finsight.errors import FinsightError

HIDDEN = "[hidden]"
_TEXTS = frozenset({"text", "texts", "line", "body", "payload", "content"})
_SECRETS = re.compile(r"(password|passwd|secret|token|key|cookie|authorization|credentials?|ticket|headers)$")
_FORMS = (
    r"fsk_[0-9a-f]{24}_[A-Za-z0-9_-]+",  # a key of the service
    r"(?<=earer)(?:\s|%20|\+)+[A-Za-z0-9._~+/=-]{8,}",
    r"(?<=asic)(?:\s|%20|\+)+[A-Za-z0-9+/=]{8,}",
    r"eyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)*",  # a JSON web token, or what looks like one: to ask for its dots could take minutes
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    r"AGE-SECRET-KEY-1[0-9A-Z]+",
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
    r"(?<=://)[^/\s@]+(?=@)",  # user and password of an address
    r"(?<=[?&])(?:X-Amz-(?:Signature|Credential|Security-Token)|ticket|code|state|token)=[^&\s\"']+",
)
_SHORTEST = 6  # characters: a shorter value of a variable would be found in words that are none


def scrubbed(text: str) -> str:
    """A text without the secrets that are in it."""
    return _secrets().sub(HIDDEN, text)


def field(name: str, value: Any) -> Any:
    """The value of a named field, fit to be shown."""
    if _SECRETS.search(name.lower()) or (name.lower() in _TEXTS and not _texts_shown()):
        return HIDDEN
    if isinstance(value, str):
        return scrubbed(value)
    if isinstance(value, dict):
        return {key: field(str(key), inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [field("", inner) for inner in value]
    return value if isinstance(value, (int, float, bool)) or value is None else scrubbed(str(value))


def words(error: BaseException) -> str:
    """What an error says, where that may be shown."""
    return scrubbed(" ".join(str(error).split())) if isinstance(error, FinsightError | OSError) or _texts_shown() else HIDDEN


def frames(error: BaseException) -> str:
    """Where an error and what led to it came from, as a traceback whose last lines are :func:`words`."""
    chain, seen = [], error
    while True:
        lines = "".join(traceback.format_tb(seen.__traceback__))
        chain.append(f"Traceback (most recent call last):\n{lines}{type(seen).__name__}: {words(seen)}")
        before = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
        if before is None:
            return scrubbed("\n\nwhich led to\n\n".join(reversed(chain)))
        seen = before


def _texts_shown() -> bool:
    return os.environ.get("FINSIGHT_LOG_TEXTS", "").lower() in ("1", "true", "yes", "on")


@cache
def _secrets() -> re.Pattern[str]:
    """Made once: what the environment holds at the start is what this process works with."""
    held = {value for name, value in os.environ.items() if _SECRETS.search(name.lower()) and len(value) >= _SHORTEST and "\n" not in value}
    return re.compile("|".join([*(re.escape(value) for value in sorted(held, key=len, reverse=True)), *_FORMS]))
