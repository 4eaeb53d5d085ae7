"""How many sockets are open, whose, and what each is held to."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from anyio import CapacityLimiter

from finsight.domain.access import Principal
from finsight.service.problems import WAIT, Problem

_CHECKS = 8


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """Numbers of sockets are of one replica; times are seconds.

    :param at_once: sockets in all; ``of_tenant`` and ``of_principal`` of them may be one's.
    :param in_flight: messages of a socket that are worked on, or wait to be taken by its peer.
    :param refused: messages in a row beyond the limit of requests, after which the socket is closed.
    :param recheck: between two looks whether the credential is still good.
    :param idle: that a socket which has to be spoken to may hear nothing.
    :param age: that a socket may be open: the credential behind a ticket may be one that nobody here can ask about.
    :param slow: that a message may wait to be taken.
    """

    at_once: int = 512
    of_tenant: int = 128
    of_principal: int = 32
    in_flight: int = 32
    refused: int = 100
    recheck: float = 10.0
    idle: float = 300.0
    age: float = 3600.0
    slow: float = 15.0


class Sockets:
    """Belongs to one event loop."""

    def __init__(self, limits: SocketLimits = SocketLimits()) -> None:
        self.limits = limits
        self.ending = asyncio.Event()
        """Set when all have to close."""
        self.checks = CapacityLimiter(_CHECKS)
        """Threads in which sockets are looked at: while Redis says nothing they take none of those of requests."""
        self._open: Counter[tuple[str, ...]] = Counter()

    @contextmanager
    def place(self, principal: Principal) -> Iterator[None]:
        """A place for a socket, as long as the block runs.

        :raises Problem: 429 where the principal or the tenant has as many as they may, 503 where the service has, or ends.
        """
        if self.ending.is_set():
            raise Problem(
                503, "the service is ending; ask another replica, or this one again later", "draining", {"Retry-After": str(WAIT)}
            )
        all_: tuple[str, ...] = ()
        tenant: tuple[str, ...] = (principal.tenant,)
        who = (*tenant, principal.subject)
        wait = {"Retry-After": str(12 * WAIT)}
        for key, most, name in ((who, self.limits.of_principal, "you"), (tenant, self.limits.of_tenant, principal.tenant)):
            if self._open[key] >= most:
                raise Problem(429, f"{most} sockets of {name} are open here; close one first", "too-many-sockets", wait)
        if self._open[all_] >= self.limits.at_once:
            raise Problem(503, f"{self.limits.at_once} sockets are open here; try again", "busy", wait)
        keys = (all_, tenant, who)
        self._open.update(keys)
        try:
            yield
        finally:
            self._open.subtract(keys)
            for key in keys:
                if not self._open[key]:
                    del self._open[key]

    async def drain(self, seconds: float) -> None:
        """Have all closed, and wait for that; from now on none is opened."""
        self.ending.set()
        end = time.monotonic() + seconds
        while self._open and time.monotonic() < end:
            await asyncio.sleep(0.02)
