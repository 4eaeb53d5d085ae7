"""What is said of jobs, for all sockets that follow them: the queue is asked once for all of them, by one thread."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from anyio import CapacityLimiter, to_thread

from finsight.domain.jobs import Event, Job, place
from finsight.errors import DataError
from finsight.service_ports import JobQueue

PAGE = 100  # events that are fetched at once
KEPT = 200  # newest events of a job that sockets share; who is further behind reads the queue
WAIT = 0.25  # seconds that one question to the queue waits; a job that is new to the feed waits for its end
PAUSE = 0.05  # seconds between two: what comes close together is told together
_THREADS = 8  # in which followers read the queue: while it says nothing they take none of those of requests
LOOK = 10.0  # seconds of silence after which a job is looked at, in case nothing more will come


class _Tail:
    """The newest events of a job."""

    def __init__(self, cursor: str) -> None:
        self.cursor = cursor
        """Up to where the feed has read."""
        self.followers = 0
        self.error: Exception | None = None
        self._before, self._events, self._changed = cursor, list[Event](), asyncio.Event()

    def begin_at(self, cursor: str) -> None:
        """Read from there again, if that is before: whoever came first may have named a cursor that is yet to come."""
        if place(cursor) < place(self.cursor):
            self.cursor = self._before = cursor
            self._events = []

    def add(self, events: list[Event]) -> None:
        """Keep these too."""
        self.cursor = events[-1].cursor
        self._events += events
        if extra := self._events[:-KEPT]:
            self._before, self._events = extra[-1].cursor, self._events[-KEPT:]
        self.wake()

    def wake(self) -> None:
        """Have all look who wait."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def after(self, cursor: str) -> list[Event]:
        """What came after a cursor; empty where that is no longer known here, or nothing comes for a while.

        :raises UnreachableError: when the queue does not answer.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK):
                while not self.error and place(self._before) <= place(cursor):
                    if found := self._events[bisect_right(self._events, place(cursor), key=_place) :]:
                        return found
                    await self._changed.wait()
        if self.error:
            raise self.error
        return []


class JobFeed:
    """Belongs to one event loop. What is kept for a slow follower is a page: it asks for the next when that was taken."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._threads = CapacityLimiter(_THREADS)
        self._tails: dict[str, _Tail] = {}
        self._reading: asyncio.Task[None] | None = None

    async def follow(self, job: Job, cursor: str, tell: Callable[[Event], Awaitable[None]]) -> str:
        """Tell each event of a job after a cursor, once and in order, until the job has ended; in which state.

        :raises DataError: when it is no longer there.
        :raises UnreachableError: when the queue does not answer.
        """
        while True:
            while events := await to_thread.run_sync(self._queue.events, job.id, cursor, PAGE, limiter=self._threads):
                cursor, end = await _told(events, tell)
                if end:
                    return end
            if job.state.ended:
                return job.state
            with self._tail(job.id, cursor) as tail:
                while events := await tail.after(cursor):
                    cursor, end = await _told(events, tell)
                    if end:
                        return end
            now = await to_thread.run_sync(self._queue.get, job.id, limiter=self._threads)
            if now is None:
                raise DataError(f"job {job.id} is no longer there")
            job = now

    @contextmanager
    def _tail(self, job: str, cursor: str) -> Iterator[_Tail]:
        tail = self._tails.setdefault(job, _Tail(cursor))
        tail.begin_at(cursor)
        tail.followers += 1
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
        try:
            yield tail
        finally:
            tail.followers -= 1
            if not tail.followers and self._tails.get(job) is tail:
                del self._tails[job]

    async def _read(self) -> None:
        """Ask the queue as long as anybody follows."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="job-feed")
        try:
            while self._tails:
                asked = {job: tail.cursor for job, tail in self._tails.items()}
                news = await asyncio.get_running_loop().run_in_executor(thread, self._queue.news, asked, PAGE, WAIT)
                for job, events in news.items():
                    tail = self._tails.get(job)
                    if tail and tail.cursor == asked[job]:
                        tail.add(events)
                await asyncio.sleep(PAUSE)
        except Exception as error:  # noqa: BLE001  (an edge: who follows has to hear of it, whatever it is)
            tails, self._tails = list(self._tails.values()), {}
            for tail in tails:
                tail.error = error
                tail.wake()
        finally:
            thread.shutdown(wait=False)


def _place(event: Event) -> tuple[int, int]:
    return place(event.cursor)


async def _told(events: list[Event], tell: Callable[[Event], Awaitable[None]]) -> tuple[str, str]:
    """Tell events; where to go on, and the state in which the job has ended by then."""
    for event in events:
        await tell(event)
        if event.end:
            return event.cursor, event.end
    return events[-1].cursor, ""
