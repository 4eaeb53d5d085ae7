"""The server's side of the WebSocket protocol: uvicorn's, with bounds for peers that misbehave below the level of messages."""

from __future__ import annotations

import socket
from asyncio import BaseTransport, TimerHandle
from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request

from finsight.service.close_codes import Close

LARGEST = 128 * 1024  # bytes of a message: 10,000 characters, each written as two escapes of JSON, and what stands around them
MOST_FRAMES = 64  # of a message
MOST_LATE = 100  # messages that are unpacked after the close frame, in search of the peer's own
MOST_CONTROLS, WITHIN = 100, 10.0  # pings and pongs of a peer, and the seconds in which no more may come
PING = 20.0  # seconds from one ping to the next, and for its answer
LINGER = 2.0  # seconds that are left to a peer for taking the last of what was sent
_ON_THE_WAY = 128 * 1024  # bytes that the system is asked to keep of what goes out, and of what comes in
_PIECE = 4 * 1024  # bytes that are unpacked at once: as frames of nothing they take the loop for 15 ms, and a hundred times the memory


class SocketProtocol(WebSocketsSansIOProtocol):
    """One connection. Whatever its peer does, it ends within seconds of its close frame.

    uvicorn closes a connection by closing its transport, which waits for a peer that takes nothing as long as that likes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._failed, self._unread = False, bytearray()
        self._more_frames = self._late = self._controls = 0
        self._since = self._heard = 0.0

    def connection_made(self, transport: BaseTransport) -> None:
        """See :class:`asyncio.Protocol`. The system would keep megabytes for a peer, so that one that takes nothing is noticed late."""
        super().connection_made(transport)
        if found := transport.get_extra_info("socket"):
            for way in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                found.setsockopt(socket.SOL_SOCKET, way, _ON_THE_WAY)

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`. After a breach of the protocol the rest is read and let fall."""
        self._unread += data
        self._unpack()

    def _unpack(self) -> None:
        """Go on with what was read, as long as no message waits for the app."""
        while self._unread and not self.read_paused and not self._failed:
            piece = bytes(self._unread[:_PIECE])
            del self._unread[:_PIECE]
            super().data_received(piece)
            if self.conn.handshake_exc and not self.handshake_initiated:
                self._refuse()
        if self._failed:
            self._unread.clear()

    def _refuse(self) -> None:
        """Answer a head that has got through as HTTP, and is none of a handshake; uvicorn would leave the connection open for ever."""
        said = b"".join(self.conn.data_to_send())  # of what is too large or too much
        self.transport.write(said or self.conn.reject(400, f"Failed to open a WebSocket: {self.conn.handshake_exc}.\n").serialize())
        self._failed = True
        self.transport.close()
        self._end_soon()

    def handle_connect(self, event: Request) -> None:
        """See uvicorn. Frames that come before the answer to the handshake wait for it: they would be answered first."""
        super().handle_connect(event)
        if not self.handshake_complete:
            self.read_paused = True
            self.transport.pause_reading()

    async def receive(self) -> Any:
        """See the ASGI specification."""
        message = await super().receive()
        self._unpack()
        return message

    def send_receive_event_to_app(self) -> None:
        """See uvicorn, which would log a message that is not UTF-8 as an error of the service."""
        self._heard = self.loop.time()
        self._late += self.close_sent
        self._failed = self._failed or self._late > MOST_LATE
        try:
            self.frames = [data := b"".join(self.frames)]
            if self.curr_msg_data_type == "text":
                data.decode()
        except UnicodeDecodeError:
            self._break_off(Close.NOT_TEXT, "a message is not UTF-8")
        else:
            super().send_receive_event_to_app()

    def shutdown(self) -> None:
        """See uvicorn."""
        super().shutdown()
        self._end_soon()

    def handle_cont(self, event: Frame) -> None:
        """A frame that goes on with a message; one without content would cost nobody but us."""
        self._more_frames = 0 if event.fin else self._more_frames + 1
        if self._more_frames >= MOST_FRAMES:
            self._break_off(Close.FRAMES, f"a message came in more than {MOST_FRAMES} frames")
        if not self._failed:
            super().handle_cont(event)

    def handle_ping(self) -> None:
        """See uvicorn. Its answer is written without waiting for room."""
        super().handle_ping()
        self._count_control()

    def handle_pong(self, event: Frame) -> None:
        """See uvicorn."""
        super().handle_pong(event)
        self._count_control()

    def _count_control(self) -> None:
        now = self.loop.time()
        if now - self._since > WITHIN:
            self._since, self._controls = now, 0
        self._controls += 1
        if self._controls > MOST_CONTROLS:
            self._break_off(Close.FRAMES, f"more than {MOST_CONTROLS} pings and pongs came within {WITHIN:g} s")

    def _break_off(self, code: Close, why: str) -> None:
        if not self._failed:
            self.conn.fail(code, why)
            self.handle_parser_exception()

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
        """See uvicorn. What was written before may never be taken. Behind messages that wait to be read no answer can be seen."""
        if self.read_paused or self._heard > self.ping_sent_at:
            self.stop_keepalive()
            self.schedule_ping()
            return
        super().keepalive_timeout()
        self._end_soon()

    async def send(self, message: Any) -> None:
        """See the ASGI specification. A close frame doesn't wait for room: it may be the peer's taking nothing that it is for."""
        if message["type"] == "websocket.send" and self.close_sent:  # the app learns of a breach, or of silence, after what came before it
            raise ClientDisconnected
        closes = message["type"] == "websocket.close"
        if closes:
            self.writable.set()
        await super().send(message)
        if closes:
            self._end_soon()
            self._unpack()  # the peer's own close frame may be there
        elif message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True  # by a refusal; uvicorn would log that there was no answer

    def _end_soon(self) -> TimerHandle:
        return self.loop.call_later(LINGER, self.transport.abort)
