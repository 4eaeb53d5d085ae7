"""What logs and traces must not show: secrets, and the texts that clients send.

A secret is known by its form, or because it is the value of a variable, or of the file that one names. An error's words are shown where
they are our own, written to be read by whoever made it; a library's may repeat what it was given. FINSIGHT_LOG_TEXTS=true shows those, too.
"""

from __future__ import annotations

import os
import re
import textwrap
import traceback
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from finsight.errors import FinsightError

HIDDEN = "[hidden]"
_TEXTS = frozenset({"text", "texts", "line", "body", "payload", "content"})
_SECRETS = re.compile(r"(password|passwd|secret|token|key|cookie|authorization|credentials?|ticket|headers)$")
_FORMS = (
    r"fsk_[0-9a-f]{24}_[A-Za-z0-9_-]+",  # a key of the service
    r"(?:(?<=(?i:earer)[\s+])|(?<=(?i:earer)%20))\s*[A-Za-z0-9._~+/=-]{8,}",
    r"(?:(?<=(?i:asic)[\s+])|(?<=(?i:asic)%20))\s*[A-Za-z0-9+/=]{8,}",
    r"eyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)*",  # a JSON web token, or what looks like one: to ask for its dots could take minutes
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    r"AGE-SECRET-KEY-1[0-9A-Z]+",
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
    r"(?<=://)[^/?#\s]+(?=@)",  # user and password of an address; the last @ ends them
    r"(?:(?<=[?&])|(?<=%3F)|(?<=%26))(?:X-Amz-(?:Signature|Credential|Security-Token)|ticket|code|state|[a-z_]*(?:token|secret))(?:=|%3D)"
    r"[^&\s\"']+",
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
    """Where an error, those in it and what led to it came from, as a traceback whose last lines are :func:`words`."""
    return scrubbed(_traced(error, set()))


def _traced(error: BaseException, told: set[int]) -> str:
    """:param told: errors that lead to each other have no first one; those that were told already."""
    chain: list[str] = []
    seen: BaseException | None = error
    while seen is not None and id(seen) not in told:
        told.add(id(seen))
        lines = "".join(traceback.format_tb(seen.__traceback__))
        inner = seen.exceptions if isinstance(seen, BaseExceptionGroup) else ()
        parts = [textwrap.indent(_traced(one, told), "  | ") for one in inner if id(one) not in told]
        chain.append("\n".join([f"Traceback (most recent call last):\n{lines}{type(seen).__name__}: {words(seen)}", *parts]))
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return "\n\nwhich led to\n\n".join(reversed(chain))


def _texts_shown() -> bool:
    return os.environ.get("FINSIGHT_LOG_TEXTS", "").lower() in ("1", "true", "yes", "on")


@cache
def _secrets() -> re.Pattern[str]:
    """Made once: what the environment holds at the start is what this process works with."""
    held = {value for value in _held() if len(value) >= _SHORTEST and "\n" not in value}
    held |= {quote(value, safe="") for value in held}
    return re.compile("|".join([*(re.escape(value) for value in sorted(held, key=len, reverse=True)), *_FORMS]))


def _held() -> Iterator[str]:
    """The secrets of variables, and of the files that others name for one."""
    for variable, value in os.environ.items():
        name = variable.removesuffix("_FILE")
        if not _SECRETS.search(name.lower()):
            continue
        if name != variable:
            with suppress(OSError, UnicodeError):
                if Path(value).is_file():  # what a pipe gives is given once, to whoever needs it
                    yield Path(value).read_text(encoding="utf-8").rstrip("\r\n")
            continue
        yield value
        if name.lower().endswith("headers"):  # several, as name=value,name=value
            yield from (re.split("[=:]", one, maxsplit=1)[-1].strip() for one in value.split(","))
