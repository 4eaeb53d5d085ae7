"""A job queue in memory, with a clock to be set; tests/contracts/test_job_queue.py holds it to what Redis does."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from finsight.domain.jobs import Event, Job, Kind, Limits, Order, State
from finsight.errors import ParamsError
from finsight.service_ports import Backlog, Ending, Lease, Outcome, QueueFullError, ReusedKeyError, TooManyJobsError, Word

ENDS = {Ending.SUCCEEDED: State.SUCCEEDED, Ending.FAILED: State.FAILED, Ending.CANCELLED: State.CANCELLED}


@dataclass
class Kept:
    job: Job
    ready: float
    token: int = 0
    told: int = 0
    over: float = 0.0
    cancel: bool = False
    events: list[Event] = field(default_factory=list)
    gone: int = 0

    def say(self, **content: Any) -> None:
        self.events.append(Event(f"1-{self.gone + len(self.events) + 1}", content))

    def forget(self, most: int) -> None:
        while sum(len(json.dumps(event.content)) for event in self.events) > most:
            self.events.pop(0)
            self.gone += 1

    def turn(self, state: State, error: str = "", **changes: Any) -> None:
        self.job = replace(self.job, state=state, error=error, **changes)
        self.say(type="state", state=str(state), attempt=self.job.attempt, error=error)


class MemoryQueue:
    def __init__(self, lease: float = 30.0, attempts: int = 3, pause: float = 10.0, said: int = 2**20) -> None:
        self._said = said
        self._lease, self._attempts, self._pause = lease, attempts, pause
        self._kept: dict[str, Kept] = {}
        self._content: dict[str, str] = {}
        self._clients: dict[tuple[str, str], str] = {}
        self._holds: dict[str, tuple[str, float]] = {}
        self._tokens = 0

    def submit(self, order: Order, key: str = "", limits: Limits | None = None) -> tuple[Job, bool]:
        if key and (name := self._clients.get((order.tenant, key))):
            if self._kept[name].job.order.content != order.content:
                raise ReusedKeyError("another order")
            return self._kept[name].job, False
        there = self._kept.get(self._content.get(order.content, ""))
        if there and not there.cancel and there.job.state in (State.QUEUED, State.RUNNING, State.SUCCEEDED):
            self._clients[(order.tenant, key)] = there.job.id
            return there.job, False
        open_jobs = [kept.job for kept in self._kept.values() if not kept.job.state.ended]
        if limits and sum(job.state == State.QUEUED for job in open_jobs) >= limits.waiting:
            raise QueueFullError("full")
        if limits and sum(job.order.tenant == order.tenant for job in open_jobs) >= limits.active:
            raise TooManyJobsError("busy")
        name = f"{len(self._kept):032x}"
        kept = self._kept[name] = Kept(Job(name, order, State.QUEUED, 0, time.time()), time.monotonic())
        kept.turn(State.QUEUED)
        self._content[order.content] = name
        self._clients[(order.tenant, key)] = name
        return kept.job, True

    def get(self, job: str) -> Job | None:
        return self._kept[job].job if job in self._kept else None

    def jobs(
        self, tenant: str, state: State | None = None, kind: Kind | None = None, after: int = 0, limit: int = 50
    ) -> tuple[list[Job], int]:
        numbered = [(number, kept.job) for number, kept in enumerate(self._kept.values(), 1) if kept.job.order.tenant == tenant]
        wanted = [
            (number, job)
            for number, job in reversed(numbered)
            if (not after or number < after) and state in (None, job.state) and kind in (None, job.order.kind)
        ]
        return [job for _, job in wanted[:limit]], wanted[limit - 1][0] if len(wanted) >= limit else 0

    def dead(self, limit: int = 50) -> list[Job]:
        found = [kept.job for kept in self._kept.values() if kept.job.state == State.DEAD]
        return sorted(found, key=lambda job: job.ended or 0, reverse=True)[:limit]

    def backlog(self) -> Backlog:
        waiting, running, dead = (
            [kept for kept in self._kept.values() if kept.job.state == state] for state in (State.QUEUED, State.RUNNING, State.DEAD)
        )
        oldest = max([0.0, *(time.monotonic() - kept.ready for kept in waiting)])
        return Backlog(len(waiting), len(running), len(dead), oldest)

    def cancel(self, job: str) -> Job | None:
        kept = self._kept.get(job)
        if kept and kept.job.state == State.QUEUED:
            kept.turn(State.CANCELLED, ended=time.time())
        elif kept and kept.job.state == State.RUNNING and not kept.cancel:
            kept.cancel = True
            kept.say(type="cancel")
        return self.get(job)

    def events(self, job: str, after: str = "", limit: int = 500, wait: float = 0.0) -> list[Event]:
        try:
            start = int(after.partition("-")[2]) if after else 0
        except ValueError:
            raise ParamsError("after: no cursor") from None
        kept = self._kept.get(job)
        if kept is None:
            return []
        line = f"… {kept.gone} events before this one are no longer kept"
        gap = [Event(f"1-{kept.gone}", {"type": "log", "line": line})] if start < kept.gone else []
        return [*gap, *kept.events[max(0, start - kept.gone) :]][:limit]

    def news(self, after: Mapping[str, str], limit: int = 500, wait: float = 0.0) -> dict[str, list[Event]]:
        found = {job: self.events(job, cursor, limit) for job, cursor in after.items()}
        return {job: events for job, events in found.items() if events}

    def latest(self, job: str, limit: int) -> list[Event]:
        return self._kept[job].events[-limit:] if job in self._kept else []

    def take(self, worker: str) -> Lease | None:
        now = time.monotonic()
        for kept in self._kept.values():
            if kept.job.state == State.RUNNING and kept.over <= now:
                self._again(kept, "its worker was lost")
        due = [kept for kept in self._kept.values() if kept.job.state == State.QUEUED and kept.ready <= time.monotonic()]
        if not due:
            return None
        kept = min(due, key=lambda one: one.ready)
        self._tokens += 1
        kept.token, kept.told, kept.over = self._tokens, 0, now + self._lease
        kept.turn(State.RUNNING, attempt=kept.job.attempt + 1, started=time.time(), stage="", progress=0.0)
        return Lease(kept.job, kept.token, self._lease, kept.job.attempt >= self._attempts)

    def tell(self, lease: Lease, number: int, events: Sequence[Mapping[str, Any]] = ()) -> Word:
        kept = self._held(lease)
        if kept is None:
            return Word.LOST
        kept.over = time.monotonic() + self._lease
        if number > kept.told:
            kept.told = number
            for event in events:
                kept.say(**event)
                kept.forget(self._said)
                if event["type"] == "stage":
                    kept.job = replace(kept.job, stage=event["stage"], progress=0.0)
                elif event["type"] == "progress":
                    kept.job = replace(kept.job, progress=event["step"] / event["steps"])
                elif event["type"] == "metrics":
                    kept.job = replace(kept.job, metrics=event["metrics"])
        return Word.CANCEL if kept.cancel else Word.GO_ON

    def end(self, lease: Lease, outcome: Outcome) -> bool:
        kept = self._held(lease)
        if kept is None:
            return False
        metrics = outcome.metrics or kept.job.metrics
        kept.job = replace(kept.job, metrics=metrics, experiment=outcome.experiment, result=outcome.result)
        if outcome.ending == Ending.GIVEN_BACK and not kept.cancel:
            kept.token = 0
            kept.turn(State.QUEUED, outcome.error, attempt=kept.job.attempt - 1)
        elif outcome.ending in (Ending.BROKEN, Ending.GIVEN_BACK):
            self._again(kept, outcome.error)
        else:
            kept.token = 0
            done = 1.0 if outcome.ending == Ending.SUCCEEDED else kept.job.progress
            kept.turn(ENDS[outcome.ending], outcome.error, ended=time.time(), progress=done)
        return True

    def hold(self, what: str, token: str, seconds: float) -> bool:
        holder, until = self._holds.get(what, ("", 0.0))
        if holder != token and until > time.monotonic():
            return False
        self._holds[what] = (token, time.monotonic() + seconds)
        return True

    def release(self, what: str, token: str) -> None:
        if self._holds.get(what, ("", 0.0))[0] == token:
            del self._holds[what]

    def _held(self, lease: Lease) -> Kept | None:
        kept = self._kept[lease.job.id]
        return kept if kept.token == lease.token else None

    def _again(self, kept: Kept, error: str) -> None:
        kept.token = 0
        if kept.cancel:
            kept.turn(State.CANCELLED, ended=time.time())
        elif kept.job.attempt >= self._attempts:
            kept.turn(State.DEAD, error, ended=time.time())
        else:
            kept.ready = time.monotonic() + self._pause * 2 ** (kept.job.attempt - 1)
            kept.turn(State.QUEUED, error)
