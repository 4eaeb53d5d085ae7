"""HTTP/1.1 as it goes over a connection: who connects has to say in time, and in few words, what they want, and to take the answer."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD = 15.0  # seconds from the connection, or from a head's first byte, until the whole head is there
LARGEST = 64 * 1024  # bytes of a head, or of a body's framing and trailers, and what comes in one piece with its end
TAKING, SLOWEST = 15.0, 8 * 1024  # seconds between two looks at what waits to be taken, and bytes a second that have to be


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with an end to its patience.

    uvicorn itself waits for ever for the head of a request, and keeps all of it: a few hundred connections that say nothing, or a byte now
    and then, take all the file descriptors that a process may have, and one that never stops takes its memory. It waits as long for an
    answer to be taken: as many connections as requests may be worked on at once, which read nothing, would keep everybody else out.
    """

    _timer: asyncio.TimerHandle | None = None
    _taking: asyncio.TimerHandle | None = None
    _in_head = _got_on = False
    _length = 0  # of what came since a head, a piece of a body or a request was whole

    def connection_made(self, transport: Any) -> None:
        """See :class:`asyncio.Protocol`."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`."""
        self._got_on = False
        super().data_received(data)
        self._length = 0 if self._got_on else self._length + len(data)
        if self._length > LARGEST and not self.transport.is_closing():
            self.send_400_response("What stands around the body of the request is too large.")

    def connection_lost(self, exc: Exception | None) -> None:
        """See :class:`asyncio.Protocol`."""
        self._has_head()
        self._was_taken()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """See :class:`asyncio.Protocol`."""
        super().pause_writing()
        self._await_taking()

    def resume_writing(self) -> None:
        """See :class:`asyncio.Protocol`."""
        super().resume_writing()
        self._was_taken()

    def on_message_begin(self) -> None:
        """See the documentation of httptools."""
        super().on_message_begin()
        self._in_head = True
        self._await_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """See the documentation of httptools. uvicorn takes trailers for more of the head (RFC 9110, 6.5.1: never), as a client's address
        from a proxy that checks heads alone, and keeps all that come."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """See the documentation of httptools."""
        self._has_head()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """See the documentation of httptools."""
        self._got_on = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """See the documentation of httptools."""
        self._got_on = True
        super().on_message_complete()

    def _await_head(self) -> None:
        self._timer = self._timer or self.loop.call_later(HEAD, self._give_up)

    def _has_head(self) -> None:
        self._in_head, self._got_on = False, True
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self.cycle and not self.cycle.response_complete:  # the one before is being answered, and this one not read as long as it is
            self._await_head()
        elif not self.transport.is_closing():
            self.transport.close()

    def _await_taking(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._taking = self.loop.call_later(TAKING, self._look, left - TAKING * SLOWEST)

    def _look(self, enough: float) -> None:
        if self.transport.get_write_buffer_size() > enough:
            self.transport.abort()
        else:
            self._await_taking()

    def _was_taken(self) -> None:
        if self._taking:
            self._taking.cancel()
            self._taking = None
