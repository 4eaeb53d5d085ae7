"""The champion, followed: another bundle is made ready beside the one in service, and swapped in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from finsight.errors import FinsightError, UnreachableError
from finsight.ports import ModelVersion
from finsight.service.beside import beside
from finsight.service.meters import Meters
from finsight.service.predictions import Predictions, Served

_LOG = logging.getLogger("finsight.service")


class Follower:
    """Looks which version is meant now, every so often and when it is told to.

    :param newest: asks the registry; called in a thread, as ``load`` is.
    :param load: fetches, checks, opens and warms a version.
    :param every: seconds between two looks.
    """

    def __init__(
        self,
        predictions: Predictions,
        meters: Meters,
        newest: Callable[[], ModelVersion],
        load: Callable[[ModelVersion], Served],
        every: float,
    ) -> None:
        self._predictions, self._meters, self._newest, self._load, self._every = predictions, meters, newest, load, every
        self._refused: ModelVersion | None = None
        self._lost = False
        self._told = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def look_now(self) -> None:
        """Look before the time is up; may be called from any thread."""
        if self._loop:
            self._loop.call_soon_threadsafe(self._told.set)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow while the service lives."""
        self._loop = asyncio.get_running_loop()
        async with beside(self._follow()):
            yield

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), self._every)
            self._told.clear()
            try:
                await self.look()
            except Exception:  # noqa: BLE001  (an edge: without this task the service would go on and silently follow nothing)
                _LOG.exception("the champion could not be looked at; the bundle in service stays")

    async def look(self) -> None:
        """Swap where another version is meant now. One that is damaged, or not signed as asked, is refused once and the old one stays."""
        try:
            version = await asyncio.to_thread(self._newest)
            if version.bundle_digest == self._predictions.served.digest or version == self._refused:
                return
            served = await asyncio.to_thread(self._load, version)
        except UnreachableError as error:
            if not self._lost:
                _LOG.warning("the registry does not answer, and the bundle in service stays: %s", error)
            self._lost = True
            return
        except (FinsightError, OSError) as error:
            self._refuse(version, error)
            return
        self._lost = False
        self._predictions.swap(served)
        self._meters.swaps.labels("swapped").inc()
        _LOG.warning("version %s is in service now: bundle %s", version.number, served.digest)

    def _refuse(self, version: ModelVersion, error: Exception) -> None:
        """It is not looked at again before the registry says something else of it."""
        self._refused = version
        self._meters.swaps.labels("refused").inc()
        _LOG.error("version %s is refused, and the bundle in service stays: %s", version.number, error)
