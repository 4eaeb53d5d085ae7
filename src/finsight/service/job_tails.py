"""The last lines of jobs' logs, for pages that ask every two seconds: only what is new is read, whoever asks."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from finsight.service_ports import JobQueue

LINES = 60  # of a log
SAID = 1000  # events that the last lines are looked for in
_KEPT = 64  # jobs: of 60 lines of 4,000 characters at most


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of what was said of a job.

    :param cursor: of the last event.
    :param more: whether events from before may not have been looked at.
    :param cancelled: whether it was asked to end.
    """

    cursor: str = ""
    lines: tuple[str, ...] = ()
    more: bool = False
    cancelled: bool = False


class Tails:
    """Those of the jobs that were looked at last; threads that look at one at the same time read the same twice, and no more."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._kept: OrderedDict[str, Tail] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, job: str) -> Tail:
        """The end of what was said of a job until now.

        :raises UnreachableError: when the queue does not answer.
        """
        before = self._kept.get(job, Tail())
        events = self._queue.events(job, before.cursor, SAID) if before.cursor else []
        if not before.cursor or len(events) == SAID:  # much is new: the last of it is read, as at the first time
            before = Tail(more=before.more, cancelled=before.cancelled)
            events = self._queue.latest(job, SAID)
        if not events:
            return before
        said = [event.content for event in events]
        lines = [*before.lines, *(content["line"] for content in said if content["type"] == "log")][-LINES:]
        cancelled = before.cancelled or any(content["type"] == "cancel" for content in said)
        found = Tail(events[-1].cursor, tuple(lines), before.more or len(events) == SAID, cancelled)
        with self._lock:
            self._kept[job] = found
            self._kept.move_to_end(job)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found
