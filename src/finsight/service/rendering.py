"""HTML of the service, by templates: what it may load, and from where."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

_POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'nonce-{nonce}'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


@functools.cache
def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("finsight.service"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"time": _time, "number": _number}
    return found


def html(name: str, status: int = 200, headers: Mapping[str, str] | None = None, **about: Any) -> HTMLResponse:
    """A template as an answer: a whole page, or a piece of one."""
    nonce = secrets.token_urlsafe(16)
    text = _templates().get_template(name).render(nonce=nonce, **about)
    # Without a referrer to itself a page's own forms come from the origin `null`.
    policy = {"Content-Security-Policy": _POLICY.format(nonce=nonce), "Referrer-Policy": "same-origin"}
    # It may repeat what was typed, of which a form's charset can make half a character.
    return HTMLResponse(text.encode("utf-8", "replace"), status, policy | dict(headers or {}))


def _time(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 100 and not float(value).is_integer() else f"{value:g}"
