"""What nobody foresaw, answered."""

from __future__ import annotations

import logging

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finsight import tracing
from finsight.service.envelope import REQUEST_ID
from finsight.service.problems import document

_LOG = logging.getLogger("finsight.service")


class Unforeseen:
    """ASGI middleware that answers an error by a problem document which says no more than its correlation id; the log says the rest.

    Starlette's own place for this is outside of all middleware: its answers would lack the headers that every answer has.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:
            if begun:  # the server cuts it off, so that it can't be taken for whole
                raise
            _LOG.error("%s: unforeseen", scope.get(REQUEST_ID), exc_info=error)
            tracing.failed(error)
            detail = "something unforeseen went wrong; the service's log says what, under the correlation id"
            await document(HTTPConnection(scope), 500, detail)(scope, receive, send)
