"""How much of a request, and how many of them, the service takes on."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finsight.errors import UnreachableError
from finsight.service.access import presented, unknown
from finsight.service.parts import Parts
from finsight.service.problems import WAIT, Problem, document

# Whoever asks these decides whether the service is alive; it has to be told under load too.
OPEN = ("/livez", "/readyz", "/startupz", "/healthz", "/metrics")
ANYBODYS = 64 * 1024  # bytes of a body that are read before it is known who sends them: reading JSON holds up all other requests
PATIENCE, SLOWEST = 20.0, 8 * 1024  # seconds that a body may take, and bytes for each of which it may take a second more


class BodyCap:
    """ASGI middleware that refuses a body that is too large (413), by its stated length before it is read, or as it comes; a larger one of
    somebody unknown (401); and one that comes too slowly (408).

    A small body is read here, before the request takes one of the places of :class:`AtOnce`: who sends slowly takes none.

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
        body = _Body(scope, receive, self._larger.get(scope["path"], self._most))
        try:
            await body.gather()
        except Problem as refused:
            answer = document(Request(scope), refused.status_code, refused.detail, refused.kind, refused.headers)
            await answer(scope, receive, send)
            return
        await self._app(scope, body.message, send)


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


class _Body:
    """A request's body as it comes. What is wrong with it is a Problem, which FastAPI passes on; the connection ends with the answer, since
    the rest is not read."""

    def __init__(self, scope: Scope, receive: Receive, most: int) -> None:
        self._scope, self._receive, self._most = scope, receive, most
        # The server has checked that it is a number.
        self._stated = int(Headers(scope=scope).get("content-length", "0"))
        self._began, self._read = time.monotonic(), 0
        self._whole = self._known = False
        self._gathered: deque[Message] = deque()

    async def gather(self) -> None:
        """Read what is read of anybody."""
        if self._stated > self._most:
            raise self._too_large()
        while not self._whole and not self._large:
            self._gathered.append(await self._next())

    async def message(self) -> Message:
        """See the ASGI specification: ``receive``."""
        if self._gathered:
            return self._gathered.popleft()
        return await (self._receive() if self._whole else self._next())

    @property
    def _large(self) -> bool:
        return max(self._stated, self._read) > ANYBODYS

    async def _next(self) -> Message:
        if self._large and not self._known:
            await self._recognise()
        try:
            async with asyncio.timeout(PATIENCE + self._read / SLOWEST - (time.monotonic() - self._began)):
                message = await self._receive()
        except TimeoutError:
            raise Problem(408, "the body comes too slowly; send it at once", "too-slow", {"Connection": "close"}) from None
        self._read += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._read > self._most:
            raise self._too_large()
        return message

    async def _recognise(self) -> None:
        connection, parts = HTTPConnection(self._scope), self._scope["app"].state.parts
        try:
            self._known = await run_in_threadpool(_is_known, connection, parts)
        except UnreachableError as error:
            raise Problem(503, str(error), headers={"Retry-After": str(WAIT), "Connection": "close"}) from None
        if not self._known:
            raise unknown({"Connection": "close"})

    def _too_large(self) -> Problem:
        return Problem(413, f"the body is larger than {self._most} bytes; send less at a time", "too-large", {"Connection": "close"})


def _is_known(connection: HTTPConnection, parts: Parts) -> bool:
    return parts.gate.principal(presented(connection)) is not None
