"""How much of a request, and how many of them, the service takes on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finsight.service.problems import document

OPEN = ("/livez", "/readyz", "/metrics")  # whoever asks these decides whether the service is alive; it has to be told under load too


class BodyCap:
    """ASGI middleware that refuses a body that is too large with 413: by its stated length before it is read, or as it comes.

    :param most: bytes.
    :param larger: paths whose bodies may be larger → bytes.
    """

    def __init__(self, app: ASGIApp, most: int, larger: Mapping[str, int] = MappingProxyType({})) -> None:
        self._app, self._most, self._larger = app, most, larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._larger.get(scope["path"], self._most)
        # The server has checked that it is a number.
        if int(Headers(scope=scope).get("content-length", "0")) > most:
            await _too_large(most)(scope, receive, send)
            return
        read, begun, over = 0, False, False

        async def counted() -> Message:
            nonlocal read, over
            message = await receive()
            read += len(message.get("body", b""))
            if read > most:
                over = True
                raise _OverError
            return message

        async def checked(message: Message) -> None:
            nonlocal begun
            # What reads the body may have made an answer of its own out of the error: it is not the one to give.
            if not over or begun:
                begun = True
                await send(message)

        try:
            await self._app(scope, counted, checked)
        except _OverError:
            if begun:
                raise
        if over and not begun:
            await _too_large(most)(scope, receive, send)


class AtOnce:
    """ASGI middleware that answers 503 while a number of requests is being worked on.

    :param most: requests.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most
        self._now = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        if self._now >= self._most:
            detail = f"{self._most} requests are being worked on; try again"
            await document(Request(scope), 503, detail, "busy", {"Retry-After": "1"})(scope, receive, send)
            return
        self._now += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._now -= 1


class _OverError(Exception):
    """More came than was allowed."""


def _too_large(most: int) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        # The rest of the body is not read: the connection ends with the answer.
        detail = f"the body is larger than {most} bytes; send less at a time"
        await document(Request(scope), 413, detail, "too-large", {"Connection": "close"})(scope, receive, send)

    return answer
