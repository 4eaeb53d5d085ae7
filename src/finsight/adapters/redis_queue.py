"""The job queue on Redis: a few Lua scripts, and one stream of events a job. Why not a library: docs/adr/0015-jobs.md."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from finsight.adapters import redis_scripts as lua
from finsight.adapters.redis_connection import answering, connect
from finsight.domain.jobs import Event, Job, Kind, Limits, Order, State, place
from finsight.errors import ParamsError, UnreachableError
from finsight.service_ports import Backlog, Lease, Outcome, QueueFullError, ReusedKeyError, TooManyJobsError, Word

KEPT = 30 * 24 * 3600  # seconds that a job is kept after its end
SAID = 8 * 2**20  # bytes of what was said of a job that are kept, the newest
CLIENT_KEY = 24 * 3600  # seconds that a client's key is good for
LONGEST_CALL = 10.0  # seconds; less where the lease is short, so that a worker notices in time that nobody answers
_SCANNED = 1000  # jobs that are looked at for a page, at most
_P = "{jobs}:"
_NO_LIMITS = Limits(2**31, 2**31)
_reachable = partial(answering, "Redis does not do what is asked", "is it there, and FINSIGHT_REDIS_URL right?")


class RedisQueue:
    """See :class:`~finsight.service_ports.JobQueue`.

    :param lease: seconds from a worker's last word until its job is another's.
    :param attempts: how often a job is tried.
    :param pause: seconds before the second attempt; twice as long before each further one.
    :param said: bytes of what was said of a job that are kept.
    :raises ParamsError: when the address is none.
    """

    def __init__(self, url: str, lease: float = 30.0, attempts: int = 3, pause: float = 10.0, said: int = SAID) -> None:
        self._call = max(1.0, min(LONGEST_CALL, lease / 3))
        # A step is never sent again here: whoever asks for it knows whether it may be done twice.
        self._redis = connect(url, seconds=self._call, again=0)
        self._lease, self._said = lease, said
        self._tries = (attempts, round(pause * 1000), KEPT)

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def submit(self, order: Order, key: str = "", limits: Limits | None = None) -> tuple[Job, bool]:
        """See :class:`~finsight.service_ports.JobQueue`."""
        job, most = uuid.uuid4().hex, limits or _NO_LIMITS
        fields = {
            "kind": order.kind,
            "parameters": json.dumps(dict(order.parameters)),
            "owner": order.owner,
            "revision": order.revision,
            "inputs": json.dumps(dict(order.inputs)),
            "origin": json.dumps(dict(order.origin)),
        }
        asked = (job, order.content, order.tenant, key, CLIENT_KEY, most.waiting, most.active)
        said, found = self._run(lua.SUBMIT, *asked, *_flat(fields))
        match said:
            case "reused":
                raise ReusedKeyError("Idempotency-Key: it came with another order within the last day; choose a new one for this order")
            case "full":
                raise QueueFullError(f"{most.waiting} jobs wait already; try again later")
            case "busy":
                raise TooManyJobsError(f"{most.active} jobs of {order.tenant} wait or run already; cancel one, or wait for one to end")
        there = self.get(found)
        if there is None:
            raise UnreachableError("Redis has lost a job that it had a moment ago; is its memory full?")
        return there, found == job and said == "new"

    def get(self, job: str) -> Job | None:
        """See :class:`~finsight.service_ports.JobQueue`."""
        with _reachable():
            return _job(job, self._redis.hgetall(f"{_P}job:{job}"))

    def jobs(
        self, tenant: str, state: State | None = None, kind: Kind | None = None, after: int = 0, limit: int = 50
    ) -> tuple[list[Job], int]:
        """See :class:`~finsight.service_ports.JobQueue`."""
        below, found = f"({after}" if after else "+inf", list[Job]()
        with _reachable():
            rows = self._redis.zrevrangebyscore(f"{_P}all:{tenant}", below, "-inf", 0, _SCANNED, withscores=True)
            for start in range(0, len(rows), limit):
                page = rows[start : start + limit]
                for (name, number), job in zip(page, self._many([name for name, _ in page]), strict=True):
                    if job is None:
                        self._redis.zrem(f"{_P}all:{tenant}", name)  # it ended long ago
                    elif state in (None, job.state) and kind in (None, job.order.kind):
                        found.append(job)
                        if len(found) == limit:
                            return found, int(number)
        return found, int(rows[-1][1]) if len(rows) == _SCANNED else 0

    def dead(self, limit: int = 50) -> list[Job]:
        """See :class:`~finsight.service_ports.JobQueue`."""
        with _reachable():
            return [job for job in self._many(self._redis.zrevrange(f"{_P}dead", 0, limit - 1)) if job]

    def backlog(self) -> Backlog:
        """See :class:`~finsight.service_ports.JobQueue`."""
        waiting, running, dead, oldest = self._run(lua.BACKLOG)
        return Backlog(waiting, running, dead, oldest / 1000)

    def cancel(self, job: str) -> Job | None:
        """See :class:`~finsight.service_ports.JobQueue`."""
        self._run(lua.CANCEL, job, KEPT)
        return self.get(job)

    def events(self, job: str, after: str = "", limit: int = 500, wait: float = 0.0) -> list[Event]:
        """See :class:`~finsight.service_ports.JobQueue`.

        :raises ParamsError: when the cursor is none.
        """
        return self.news({job: after}, limit, wait).get(job, [])

    def news(self, after: Mapping[str, str], limit: int = 500, wait: float = 0.0) -> dict[str, list[Event]]:
        """See :class:`~finsight.service_ports.JobQueue`.

        :raises ParamsError: when a cursor is none.
        """
        if any(cursor and not re.fullmatch(r"[0-9]{1,19}-[0-9]{1,19}", cursor) for cursor in after.values()):
            raise ParamsError("after: that is no cursor; take the one that came with an event, or none for the beginning")
        if not after:
            return {}
        block = round(min(wait, self._call / 2) * 1000) or None
        with _reachable():
            answer: Any = self._redis.xread(
                {f"{_P}events:{job}": cursor or "0-0" for job, cursor in after.items()}, count=limit, block=block
            )
        streams = answer.items() if isinstance(answer, Mapping) else answer or []
        # Of one stream there is one list, which the newer protocol wraps in another.
        lists = {name: found[0] if found and isinstance(found[0], list) else found for name, found in streams}
        news = {
            name.removeprefix(f"{_P}events:"): [Event(cursor, json.loads(fields["event"])) for cursor, fields in found]
            for name, found in lists.items()
            if found
        }
        return {job: [*self._gap(job, after[job], events[0].cursor), *events][:limit] for job, events in news.items()}

    def _gap(self, job: str, after: str, first: str) -> list[Event]:
        """A line in the place of the events between two cursors that are no longer kept, where there were any."""
        time, number = place(first)
        if number <= place(after)[1] + 1:
            return []
        with _reachable():
            oldest = self._redis.xrange(f"{_P}events:{job}", count=1)
        if oldest and place(oldest[0][0]) <= place(after):  # a client has made the cursor up
            return []
        line = f"… {number - 1} events before this one are no longer kept: the log of a job has its last {self._said / 2**20:g} MiB"
        return [Event(f"{time}-{number - 1}", {"type": "log", "line": line})]

    def latest(self, job: str, limit: int) -> list[Event]:
        """See :class:`~finsight.service_ports.JobQueue`."""
        with _reachable():
            entries = self._redis.xrevrange(f"{_P}events:{job}", count=limit)
        return [Event(cursor, json.loads(fields["event"])) for cursor, fields in reversed(entries)]

    def take(self, worker: str) -> Lease | None:
        """See :class:`~finsight.service_ports.JobQueue`."""
        found = self._run(lua.TAKE, worker, round(self._lease * 1000), *self._tries)
        job = self.get(found[0]) if found else None
        if not job:
            return None
        attempt = int(found[2])  # by the time of the second call the job may be another's
        return Lease(replace(job, attempt=attempt), int(found[1]), self._lease, attempt >= self._tries[0])

    def tell(self, lease: Lease, number: int, events: Sequence[Mapping[str, Any]] = ()) -> Word:
        """See :class:`~finsight.service_ports.JobQueue`."""
        said = [json.dumps(dict(event), ensure_ascii=False) for event in events]
        asked = (lease.job.id, lease.token, number, round(self._lease * 1000), self._said, len(said), *said)
        return Word(self._run(lua.TELL, *asked, *_flat(changes(events))))

    def end(self, lease: Lease, outcome: Outcome) -> bool:
        """See :class:`~finsight.service_ports.JobQueue`."""
        fields = {"experiment": outcome.experiment, "result": outcome.result}
        if outcome.metrics:
            fields["metrics"] = json.dumps(dict(outcome.metrics))
        if outcome.ending == "succeeded":
            fields["progress"] = "1"
        asked = (lease.job.id, lease.token, outcome.ending, outcome.error, *self._tries)
        return bool(self._run(lua.END, *asked, *_flat(fields)))

    def hold(self, what: str, token: str, seconds: float) -> bool:
        """See :class:`~finsight.service_ports.JobQueue`."""
        return bool(self._run(lua.HOLD, what, token, round(seconds * 1000)))

    def release(self, what: str, token: str) -> None:
        """See :class:`~finsight.service_ports.JobQueue`."""
        self._run(lua.RELEASE, what, token)

    def _run(self, script: str, *arguments: Any) -> Any:
        with _reachable():
            return self._redis.register_script(script)(args=arguments)

    def _many(self, names: Sequence[str]) -> Iterator[Job | None]:
        with self._redis.pipeline(transaction=False) as asked:
            for name in names:
                asked.hgetall(f"{_P}job:{name}")
            yield from (_job(name, fields) for name, fields in zip(names, asked.execute(), strict=True))


def changes(events: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What events change of the job itself."""
    found: dict[str, str] = {}
    for event in events:
        match event:
            case {"type": "stage", "stage": stage}:
                found |= {"stage": str(stage), "progress": "0"}
            case {"type": "progress", "step": step, "steps": steps}:
                found["progress"] = f"{step / steps:.4f}" if steps else "0"
            case {"type": "metrics", "metrics": metrics}:
                found["metrics"] = json.dumps(metrics)
    return found


def _flat(fields: Mapping[str, str]) -> list[str]:
    return [word for pair in fields.items() for word in pair]


def _job(name: str, fields: Mapping[str, str]) -> Job | None:
    if not fields:
        return None
    when = {key: int(fields[key]) / 1000 if key in fields else None for key in ("created", "started", "ended")}
    order = Order(
        Kind(fields["kind"]),
        json.loads(fields["parameters"]),
        fields["tenant"],
        fields["owner"],
        fields["revision"],
        json.loads(fields["inputs"]),
        json.loads(fields.get("origin", "{}")),
    )
    return Job(
        name,
        order,
        State(fields["state"]),
        int(fields["attempt"]),
        when["created"] or 0.0,
        when["started"],
        when["ended"],
        fields.get("stage", ""),
        float(fields.get("progress", 0)),
        json.loads(fields.get("metrics", "{}")),
        fields.get("experiment", ""),
        fields.get("result", ""),
        fields.get("error", ""),
    )
