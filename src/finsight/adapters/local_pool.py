"""Workers on this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from typing import Any

from finsight.environment import cores, quiet
from finsight.errors import StoppedError
from finsight.shard_ports import Item, Result

_AHEAD = 2  # items a worker that are handed out: one that it is at, one that waits


class LocalPool:
    """See :class:`finsight.shard_ports.WorkerPool`.

    :param workers: processes; with one, this process itself does all, on all its cores.
    """

    def __init__(self, workers: int = 1) -> None:
        self._workers = workers

    @property
    def cores(self) -> int:
        """See :class:`finsight.shard_ports.WorkerPool`."""
        return max(1, cores() // self._workers)

    def run(self, make: Callable[[], Callable[[Item], Result]], items: Sequence[Item]) -> Iterator[Result]:
        """See :class:`finsight.shard_ports.WorkerPool`.

        :raises StoppedError: when a worker was killed.
        """
        if not items:
            return
        if self._workers == 1:
            yield from map(make(), items)
            return
        # Spawned: a fork would share the threads' locks of Arrow and of the runtimes.
        workers = min(self._workers, len(items))
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (make,))
        resource_tracker.ensure_running()  # which, when it is started, lets Ctrl-C through again
        try:
            waiting: deque[Future[Result]] = deque()
            for item in items:
                with _uninterrupted():
                    waiting.append(pool.submit(_work, item))
                if len(waiting) >= _AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise StoppedError("a worker was killed, perhaps for want of memory; the same command goes on with what is left") from None
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the block ends, and never reaches a process that begins in it: it goes to the whole terminal, and the parent ends
    its workers.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_made: list[Callable[[Any], Any]] = []  # in a worker: what it does
_make: list[Callable[[], Callable[[Any], Any]]] = []


def _begin(make: Callable[[], Callable[[Any], Any]]) -> None:
    quiet()
    threading.Thread(target=_follow_parent, daemon=True).start()
    _make.append(make)


def _follow_parent() -> None:
    """A parent that is killed can't end its workers, which would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _work(item: Any) -> Any:
    if not _made:  # not in _begin, where an error would be told as a broken pool
        _made.append(_make[0]())
    return _made[0](item)
