"""HTTP/1.1 as it comes over a connection: who connects has to say within a time what they want."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD = 15.0  # seconds from the connection, or from a head's first byte, until the whole head is there


class PatientProtocol(H11Protocol):
    """uvicorn's protocol on h11, whose heads have at most 16 KiB, with an end to its patience.

    uvicorn itself waits for ever for the head of a request, so that a few hundred connections which say nothing, or a byte now and then,
    take all the file descriptors that a process may have.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """See :class:`asyncio.Protocol`."""
        super().connection_made(transport)
        self._watch(True)

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`."""
        super().data_received(data)
        # Without a byte of the next head it is an idle connection, which uvicorn closes after its own time.
        self._watch(self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0]))

    def connection_lost(self, exc: Exception | None) -> None:
        """See :class:`asyncio.Protocol`."""
        self._watch(False)
        super().connection_lost(exc)

    def _watch(self, head_awaited: bool) -> None:
        if head_awaited:
            self._timer = self._timer or self.loop.call_later(HEAD, self.timeout_keep_alive_handler)
        elif self._timer:
            self._timer.cancel()
            self._timer = None
