"""HTTP/1.1 as it comes over a connection: who connects has to say in time, and in few words, what they want."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD = 15.0  # seconds from the connection, or from a head's first byte, until the whole head is there
LARGEST = 64 * 1024  # bytes of a head, and what comes in one piece with its end


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with an end to its patience.

    uvicorn itself waits for ever for the head of a request, and keeps all of it: a few hundred connections that say nothing, or a byte now
    and then, take all the file descriptors that a process may have, and one that never stops takes its memory.
    """

    _timer: asyncio.TimerHandle | None = None
    _in_head = False
    _length = 0

    def connection_made(self, transport: Any) -> None:
        """See :class:`asyncio.Protocol`."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`."""
        super().data_received(data)
        if self._in_head:
            self._length += len(data)
            if self._length > LARGEST and not self.transport.is_closing():
                self.send_400_response("The head of the request is too large.")

    def connection_lost(self, exc: Exception | None) -> None:
        """See :class:`asyncio.Protocol`."""
        self._has_head()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """See the documentation of httptools."""
        super().on_message_begin()
        self._in_head = True
        self._await_head()

    def on_headers_complete(self) -> None:
        """See the documentation of httptools."""
        self._has_head()
        super().on_headers_complete()

    def _await_head(self) -> None:
        self._timer = self._timer or self.loop.call_later(HEAD, self._give_up)

    def _has_head(self) -> None:
        self._in_head, self._length = False, 0
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self.cycle and not self.cycle.response_complete:  # the one before is being answered, and this one not read as long as it is
            self._await_head()
        elif not self.transport.is_closing():
            self.transport.close()
