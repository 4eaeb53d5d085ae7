"""A request as a span, where traces are wanted, and as a line of the log, where requests are."""

from __future__ import annotations

import logging
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finsight import tracing
from finsight.service.asked import path_of
from finsight.service.caps import OPEN
from finsight.service.meters import endpoint_of

_LOG = logging.getLogger("finsight.service")
_FREQUENT = "/v1/predict"  # of which a share is traced
_CONTEXT = (b"traceparent", b"tracestate")


class Observed:
    """ASGI middleware. Whoever sends trace context decides whether their request is traced, within OTEL_TRACES_SAMPLER; of the others
    health is not, and of predictions :data:`finsight.tracing.SHARE`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        logged = scope["type"] != "lifespan" and _LOG.isEnabledFor(logging.DEBUG)
        given = _traced(scope) if tracing.on() and scope["type"] != "lifespan" else None
        if given is not None:
            with tracing.span(scope.get("method", "WS"), "server", origin=given) as span:
                await self._seen(scope, receive, send, span)
        elif logged:
            await self._seen(scope, receive, send, None)
        else:
            await self._app(scope, receive, send)

    async def _seen(self, scope: Scope, receive: Receive, send: Send, span: Any) -> None:
        began, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            match message["type"]:
                case "http.response.start" | "websocket.http.response.start":
                    status = message["status"]
                case "websocket.accept":
                    status = 101
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            method, route = endpoint_of(scope)
            if span:
                _describe(span, "WS" if scope["type"] == "websocket" else method, route, status)
            if _LOG.isEnabledFor(logging.DEBUG):
                took = round(time.perf_counter() - began, 6)
                about = {"method": method, "route": route, "path": path_of(scope), "status": status, "seconds": took}
                _LOG.debug("request", extra=about)


def _traced(scope: Scope) -> dict[str, str] | None:
    """The trace context that a request to be traced brings; None where it is not traced."""
    path = scope["path"]
    if path in OPEN:
        return None
    given = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _CONTEXT}
    return None if path == _FREQUENT and not given and tracing.spared() else given


def _describe(span: Any, method: str, route: str, status: int) -> None:
    """What is known of a request once it was answered, in the words of OpenTelemetry's conventions."""
    from opentelemetry.trace import StatusCode

    span.update_name(f"{method} {route}")
    span.set_attributes({"http.request.method": method, "http.route": route, "http.response.status_code": status})
    if status >= 500 and span.status.status_code is StatusCode.UNSET:
        span.set_status(StatusCode.ERROR)
