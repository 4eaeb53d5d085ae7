"""A socket while it is open: what may be sent and received, and when it has to close."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from anyio import to_thread
from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from finsight.domain.access import Principal
from finsight.domain.policy import Resource
from finsight.errors import UnreachableError
from finsight.service.access import Gate, presented
from finsight.service.close_codes import Close, Closing
from finsight.service.envelope import REQUEST_ID
from finsight.service.permission import permitted
from finsight.service.remembered import SECONDS
from finsight.service.sockets import Sockets

_LOG = logging.getLogger("finsight.service")
_LONGEST = 123  # bytes of a reason (RFC 6455, 5.5)


class OpenSocket:
    """One that was let in.

    :param resource: what it is about, where that is a thing of somebody's.
    """

    def __init__(self, socket: WebSocket, sockets: Sockets, principal: Principal, action: str, resource: Resource | None = None) -> None:
        self._socket, self._limits, self._ending, self._checks = socket, sockets.limits, sockets.ending, sockets.checks
        self._principal, self._action, self._resource = principal, action, resource
        self._ended: asyncio.Task[bool] | None = None

    async def run(self, *work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Open it, work until something raises how it ends, and close it."""
        try:
            await self._socket.accept()
        except WebSocketDisconnect:  # the peer has gone meanwhile
            return
        self._ended = asyncio.create_task(self._ending.wait())
        tasks = [asyncio.create_task(one()) for one in (*work, self._watch)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in (*tasks, self._ended):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._close(next(error for task in done if (error := task.exception())))

    async def send(self, text: str) -> None:
        """Send a message, once those before it were taken.

        :raises Closing: when the peer takes too long for that.
        """
        try:
            async with asyncio.timeout(self._limits.slow):
                await self._socket.send_text(text)
        except TimeoutError:
            raise Closing(Close.SLOW, f"nothing was taken for {self._limits.slow:g} s; read faster, or ask for less") from None

    async def receive(self, idle: float | None = None) -> str:
        """The next message.

        :param idle: seconds to wait for it; for ever without.
        :raises Closing: when it did not come in time, is none, or the service ends.
        :raises WebSocketDisconnect: when the peer has gone.
        """
        coming = asyncio.ensure_future(self._socket.receive())
        try:
            await asyncio.wait({coming, self._ended} if self._ended else {coming}, timeout=idle, return_when=asyncio.FIRST_COMPLETED)
            if self._ending.is_set():  # also where there is a message: of a peer that goes on sending there would be no end
                raise Closing(Close.RESTART, "the service is ending; connect again")
            if not coming.done():
                raise Closing(Close.IDLE, f"no message came for {idle:g} s; connect again when there is one")
            message = coming.result()
        finally:
            coming.cancel()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code") or 1006)
        text = message.get("text")
        if text is None:
            raise Closing(Close.UNSUPPORTED, "a binary frame came; send text")
        return str(text)

    async def _watch(self) -> None:
        """Look now and then whether it may still be open."""
        opened = confirmed = time.monotonic()
        while (left := opened + self._limits.age - time.monotonic()) > 0:
            # Those that were opened together need not be looked at together.
            await asyncio.sleep(min(left, self._limits.recheck * random.uniform(0.8, 1.2)))  # noqa: S311
            try:
                await to_thread.run_sync(self._check, limiter=self._checks)
                confirmed = time.monotonic()
            except UnreachableError:  # as a key is remembered for requests while Redis is away
                if time.monotonic() - confirmed > SECONDS:
                    raise
        raise Closing(Close.AGE, f"it was open for {self._limits.age:g} s; connect again")

    def _check(self) -> None:
        gate: Gate = self._socket.app.state.parts.gate
        now = gate.still(presented(self._socket, self._socket.query_params.get("ticket")), self._principal)
        if now is None:
            raise Closing(Close.UNKNOWN, "the credential has expired or was taken back; connect with a good one")
        if not permitted(self._socket, now, self._action, self._resource):
            raise Closing(Close.FORBIDDEN, f"the policy no longer allows {self._action}; ask an admin of this service")

    async def _close(self, error: BaseException) -> None:
        if isinstance(error, WebSocketDisconnect):
            return
        if isinstance(error, UnreachableError):
            error = Closing(Close.TRY_AGAIN, "an outside system does not answer; connect again in a while")
        if not isinstance(error, Closing):
            _LOG.error("%s: unforeseen", self._socket.scope[REQUEST_ID], exc_info=error)
            error = Closing(Close.UNFORESEEN, "something unforeseen went wrong; the log says what, under the correlation id")
        reason = error.reason.encode()[:_LONGEST].decode(errors="ignore")
        with suppress(WebSocketDisconnect, RuntimeError):  # the peer has gone meanwhile
            await self._socket.close(error.code, reason)
