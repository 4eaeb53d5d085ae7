"""The end of a job's log, read on from where it was read to."""

from typing import Any

from finsight.domain.jobs import Event, Kind, Order
from finsight.service.job_tails import LINES, SAID, Tails
from memory_queue import MemoryQueue


class Counted(MemoryQueue):
    """It keeps count of the events that it has given."""

    given = 0

    def events(self, *asked: Any, **more: Any) -> list[Event]:
        found = super().events(*asked, **more)
        self.given += len(found)
        return found

    def latest(self, job: str, limit: int) -> list[Event]:
        found = super().latest(job, limit)
        self.given += len(found)
        return found


def test_each_look_reads_what_is_new_alone_and_shows_what_the_first_would() -> None:
    queue = Counted()
    job = queue.submit(Order(Kind.TRAIN, {}, "acme", "ann"))[0].id
    tails = Tails(queue)
    assert tails.of(job).lines == ()
    lease = queue.take("w")
    assert lease is not None
    told = 0

    def say(number: int) -> None:
        nonlocal told
        told += 1
        queue.tell(lease, told, [{"type": "log", "line": f"{told} {n}"} for n in range(number)])

    for number in (LINES + 10, 1, 0, 3, SAID + 10, 2):
        say(number)
        if told == 3:
            queue.cancel(job)
        queue.given = 0
        tail = tails.of(job)
        assert queue.given <= (2 * SAID if number > SAID else number + 2)
        whole = Tails(queue).of(job)
        assert (tail.lines, tail.cancelled) == (whole.lines, whole.cancelled or told >= 3)
        assert tail.more is (told >= 5)
    assert tails.of(job).cancelled
