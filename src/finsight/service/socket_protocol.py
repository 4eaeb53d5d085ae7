"""The server's side of the WebSocket protocol: uvicorn's, with bounds for peers that misbehave below the level of messages."""

from __future__ import annotations

import socket
from asyncio import BaseTransport, TimerHandle
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from finsight.service.close_codes import Close

LARGEST = 128 * 1024  # bytes of a message: 10,000 characters, each written as two escapes of JSON, and what stands around them
MOST_FRAMES = 64  # of a message
PING = 20.0  # seconds from one ping to the next, and for its answer
LINGER = 2.0  # seconds that are left to a peer for taking the last of what was sent
_ON_THE_WAY = 128 * 1024  # bytes that the system is asked to keep of what goes out, and of what comes in
_UNTAKEN = 256 * 1024  # bytes of answers to pings, and what else waits to be taken


class SocketProtocol(WebSocketsSansIOProtocol):
    """One connection. Whatever its peer does, it ends within seconds of its close frame.

    uvicorn closes a connection by closing its transport, which waits for a peer that takes nothing as long as that likes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._failed, self._more_frames = False, 0

    def connection_made(self, transport: BaseTransport) -> None:
        """See :class:`asyncio.Protocol`. The system would keep megabytes for a peer, so that one that takes nothing is noticed late."""
        super().connection_made(transport)
        if found := transport.get_extra_info("socket"):
            for way in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                found.setsockopt(socket.SOL_SOCKET, way, _ON_THE_WAY)

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`. After a breach of the protocol the rest is read and let fall."""
        if not self._failed:
            super().data_received(data)

    def shutdown(self) -> None:
        """See uvicorn."""
        super().shutdown()
        self._end_soon()

    def handle_cont(self, event: Frame) -> None:
        """A frame that goes on with a message; one without content would cost nobody but us."""
        self._more_frames = 0 if event.fin else self._more_frames + 1
        if self._more_frames >= MOST_FRAMES and not self._failed:
            self.conn.fail(Close.FRAMES, f"a message came in more than {MOST_FRAMES} frames")
            self.handle_parser_exception()
        if not self._failed:
            super().handle_cont(event)

    def handle_ping(self) -> None:
        """Its answer is written without waiting for room."""
        super().handle_ping()
        if self.transport.get_write_buffer_size() > _UNTAKEN:
            self.transport.abort()

    def handle_close(self, event: Frame) -> None:
        """See uvicorn."""
        super().handle_close(event)
        self._end_soon()

    def handle_parser_exception(self) -> None:
        """Say what was wrong, and leave the peer time to read it: closed with unread data, the connection would be reset."""
        self._failed = True
        if close := self.conn.close_sent:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": close.code, "reason": close.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.frames = []
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self._end_soon()

    def keepalive_timeout(self) -> None:
        """See uvicorn. What was written before may never be taken."""
        super().keepalive_timeout()
        self._end_soon()

    async def send(self, message: Any) -> None:
        """See the ASGI specification. A close frame doesn't wait for room: it may be the peer's taking nothing that it is for."""
        closes = message["type"] == "websocket.close"
        if closes:
            self.writable.set()
        await super().send(message)
        if closes:
            self._end_soon()
        elif message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True  # by a refusal; uvicorn would log that there was no answer

    def _end_soon(self) -> TimerHandle:
        return self.loop.call_later(LINGER, self.transport.abort)
