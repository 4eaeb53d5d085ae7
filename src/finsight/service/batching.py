"""Texts of concurrent requests, computed together.

A lane computes one batch at a time. A request that finds all lanes idle is computed at once. Where others are being computed and the last
batches were larger than what waits now, a free lane waits for more, until the first request has waited for ``deadline``.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

Compute = Callable[[Sequence[str]], NDArray[np.float64]]
"""Texts → a row each (n, k). Called in a thread."""
_LONGEST = 1000  # characters: models cut texts, so a longer one costs no more than this
_RECENT = 0.2  # weight of the newest batch in what is remembered of sizes and rates


class FullError(Exception):
    """There is no room for more.

    :param seconds: after which there should be.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(seconds)
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Limits:
    """How texts are gathered.

    :param lanes: batches that are computed at a time.
    :param texts: of a batch at most.
    :param characters: of a batch at most; one text may have more.
    :param deadline: seconds that a request waits for company at most.
    :param waiting: texts that may wait.
    :param patience: seconds of work that may wait, at the present rate; two batches a lane may always.
    """

    lanes: int = 2
    texts: int = 64
    characters: int = 16_000
    deadline: float = 0.005
    waiting: int = 1024
    patience: float = 2.0


@dataclass(slots=True, eq=False)
class _Asked:
    """A request: how many of its texts are in batches, and how many have their row."""

    compute: Compute
    texts: Sequence[str]
    answer: asyncio.Future[NDArray[np.float64]]
    since: float
    taken: int = 0
    rows: dict[int, NDArray[np.float64]] = field(default_factory=dict)


_Batch = list[tuple[_Asked, int, int]]
"""Requests, each with the first and one past the last of its texts."""


class Batcher:
    """Belongs to one event loop.

    :param seen: told the size of each batch that is begun.
    """

    def __init__(self, limits: Limits, seen: Callable[[int], None]) -> None:
        self.limits, self._seen = limits, seen
        self._queue: deque[_Asked] = deque()
        self._threads = ThreadPoolExecutor(limits.lanes, thread_name_prefix="lane")
        self._timer: asyncio.TimerHandle | None = None
        self._size, self._rate = 1.0, 0.0
        self.waiting = 0
        """Texts in no batch yet."""
        self.busy = 0
        """Lanes at work."""

    async def ask(self, compute: Compute, texts: Sequence[str]) -> NDArray[np.float64]:
        """A row of each text (n, k); texts are computed with those of other requests for the same ``compute``.

        Cancelled, it takes back what is in no batch yet.

        :raises FullError: when more texts wait than may; none of these is computed then.
        :raises Exception: what ``compute`` raised for a batch with one of these texts.
        """
        if self.waiting and not self._room(len(texts)):
            raise FullError(max(1, math.ceil(self.waiting / self._rate)) if self._rate else 1)
        asked = _Asked(compute, texts, asyncio.get_running_loop().create_future(), time.monotonic())
        self._queue.append(asked)
        self.waiting += len(texts)
        self._begin()
        try:
            return await asked.answer
        finally:
            self._drop(asked)

    def _room(self, texts: int) -> bool:
        worth = max(2 * self.limits.lanes * self.limits.texts, self._rate * self.limits.patience) if self._rate else math.inf
        return self.waiting < worth and self.waiting + texts <= self.limits.waiting

    def close(self) -> None:
        """Let go of the threads, once nothing is asked any more."""
        self._threads.shutdown()

    def _drop(self, asked: _Asked) -> None:
        """Take back what is in no batch yet: of a request that was cancelled, or a batch of which failed."""
        if asked.taken < len(asked.texts):
            self.waiting -= len(asked.texts) - asked.taken
            asked.taken = len(asked.texts)
            self._queue.remove(asked)

    def _begin(self) -> None:
        """Fill the free lanes."""
        while self._queue and self.busy < self.limits.lanes:
            if (wait := self._worth_waiting()) > 0:
                self._timer = self._timer or asyncio.get_running_loop().call_later(wait, self._timed_out)
                return
            batch = self._take()
            texts = [text for asked, start, end in batch for text in asked.texts[start:end]]
            self._size += _RECENT * (len(texts) - self._size)
            self._seen(len(texts))
            self.busy += 1
            work = asyncio.get_running_loop().run_in_executor(self._threads, batch[0][0].compute, texts)
            work.add_done_callback(partial(self._end, batch, time.monotonic()))
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _timed_out(self) -> None:
        self._timer = None
        self._begin()

    def _worth_waiting(self) -> float:
        """Seconds to wait for company; 0 or less where none is expected, enough is there, or the first has waited for long enough."""
        if not self.busy or self.waiting >= round(self._size):  # 1.1 on the mean is no company to wait for
            return 0.0
        return self._queue[0].since + self.limits.deadline - time.monotonic()

    def _take(self) -> _Batch:
        """The first that wait, for one ``compute``, within the limits; at least one text."""
        batch: _Batch = []
        texts, characters = self.limits.texts, self.limits.characters
        compute = self._queue[0].compute
        while self._queue and self._queue[0].compute is compute and texts > 0:
            asked = self._queue[0]
            start = end = asked.taken
            while end < len(asked.texts) and texts > 0:
                cost = min(len(asked.texts[end]), _LONGEST)
                if cost > characters and (batch or end > start):
                    break
                texts, characters, end = texts - 1, characters - cost, end + 1
            if end == start:
                break
            batch.append((asked, start, end))
            asked.taken = end
            self.waiting -= end - start
            if end < len(asked.texts):
                break
            self._queue.popleft()
        return batch

    def _end(self, batch: _Batch, began: float, done: asyncio.Future[NDArray[np.float64]]) -> None:
        """Hand out a batch's rows, or its error to those who are in it."""
        self.busy -= 1
        error = done.exception()
        place = 0
        for asked, start, end in batch:
            if asked.answer.done():  # its client is gone, or another batch with its texts failed
                pass
            elif error:
                asked.answer.set_exception(error)
                self._drop(asked)
            else:
                asked.rows[start] = done.result()[place : place + end - start]
                if sum(len(rows) for rows in asked.rows.values()) == len(asked.texts):
                    asked.answer.set_result(np.concatenate([asked.rows[first] for first in sorted(asked.rows)]))
            place += end - start
        rate = place * self.limits.lanes / max(time.monotonic() - began, 1e-6)
        self._rate += (_RECENT if self._rate else 1.0) * (rate - self._rate)
        self._begin()
