"""A bound on what is under way at a time, so that memory has one too."""

from __future__ import annotations

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from finsight.service.problems import WAIT, document

MOST = 512  # requests: more than lanes answer in a second or two, each some 30 KB; what is refused here costs least
_ALWAYS = frozenset({"/livez", "/readyz", "/metrics"})  # a service that is busy is not dead


class Crowd:
    """ASGI middleware: refuses requests beyond ``most`` before anything is done for them."""

    def __init__(self, app: ASGIApp, most: int = MOST) -> None:
        self._app, self._most, self._inside = app, most, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http" or scope["path"] in _ALWAYS:
            await self._app(scope, receive, send)
            return
        if self._inside >= self._most:
            refusal = document(Request(scope), 503, "too many requests are under way; ask again later", "busy", {"Retry-After": str(WAIT)})
            await refusal(scope, receive, send)
            return
        self._inside += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._inside -= 1
