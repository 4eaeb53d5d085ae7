"""What every answer carries: the correlation id of its request, and the headers that tell a browser what it must not do with it."""

from __future__ import annotations

import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finsight.service.asked import ASKED, Asked
from finsight.tracing import CORRELATION

REQUEST_ID = "finsight.request_id"
"""Where a request's scope keeps its correlation id."""
HEADER = "X-Request-ID"
_GOOD = re.compile(r"[A-Za-z0-9._-]{8,64}")  # a client's own id gets into logs: nothing that could be a line break or markup
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class Envelope:
    """ASGI middleware. A route's own headers stay: a page sets its own Content-Security-Policy."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        scope[ASKED] = found = Asked()
        scope[REQUEST_ID] = given if _GOOD.fullmatch(given) else secrets.token_hex(8)
        CORRELATION.set(scope[REQUEST_ID])  # for the task of this request alone

        async def enveloped(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                headers[HEADER] = scope[REQUEST_ID]
                headers.update(found.headers)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, enveloped)
