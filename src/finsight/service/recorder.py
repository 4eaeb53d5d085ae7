"""Writes the audit log: one place that every answer passes, so that no route can forget it."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finsight.domain.access import neighbourhood
from finsight.domain.audit import DONE, FAILED, REFUSED, Entry
from finsight.errors import UnreachableError
from finsight.service.asked import ASKED, Asked, changes, path_of
from finsight.service.client_address import client_of
from finsight.service.close_codes import REFUSALS
from finsight.service.envelope import REQUEST_ID
from finsight.service.problems import WAIT, document
from finsight.service_ports import AuditLog

_LOG = logging.getLogger("finsight.service")
_REFUSALS = (401, 403, 429)


@dataclass(slots=True)
class _Fold:
    since: float
    last: Entry
    more: int = 0  # after the first, which has a record


class Folded:
    """Refusals that repeat: the first has a record at once, those like it within a time one together. A flood does not fill the log.

    :param seconds: how long they are gathered.
    :param most: kinds of refusals that are gathered at once.
    """

    def __init__(self, seconds: float = 60, most: int = 10_000) -> None:
        self._seconds, self._most = seconds, most
        self._folds: OrderedDict[Hashable, _Fold] = OrderedDict()

    def add(self, kind: Hashable, entry: Entry) -> list[Entry]:
        """What has to be written now."""
        now = time.monotonic()
        ready = self.due(now - self._seconds)
        if fold := self._folds.get(kind):
            fold.last, fold.more = entry, fold.more + 1
            return ready
        self._folds[kind] = _Fold(now, entry)
        return [*ready, entry]

    def due(self, before: float) -> list[Entry]:
        """Take out what was begun before a time, and what there is no room for."""
        found = []
        while self._folds and (len(self._folds) >= self._most or next(iter(self._folds.values())).since <= before):
            _, fold = self._folds.popitem(last=False)
            if fold.more:
                found.append(replace(fold.last, repeats=fold.more - 1))
        return found


class Recorder:
    """ASGI middleware. A change whose record can't be written is answered by 503, and the record goes to the service's log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app, self._folded = app, Folded()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, self._until_the_end(scope, send))
            return
        seen, lost = False, False

        async def recorded(message: Message) -> None:
            nonlocal seen, lost
            status = _later(message) if seen else _status(message)
            seen = seen or status is not None
            if status is not None and not await self._record(scope, status):
                lost = True
                detail = "it was done, but the audit log can't take it; the service's log has it, under the correlation id"
                await document(Request(scope), 503, detail, "not-recorded", {"Retry-After": str(WAIT)})(scope, receive, send)
            if not lost:
                await send(message)

        try:
            await self._app(scope, receive, recorded)
        except Exception:
            if not seen:
                await self._record(scope, 500)
            raise
        except asyncio.CancelledError:  # at the end of the service, which waits for nothing more; what was begun in a thread goes on
            if not seen:
                _written(scope["app"].state.parts.rules.audit, self._due(scope, 500)[0])
            raise

    def _until_the_end(self, scope: Scope, send: Send) -> Send:
        async def ended(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown"):  # the server waits for nothing that comes later
                await run_in_threadpool(_written, scope["app"].state.parts.rules.audit, self._folded.due(time.monotonic()))
            await send(message)

        return ended

    async def _record(self, scope: Scope, status: int) -> bool:
        """Write what an answer says; whether the answer may be given."""
        entries, outcome = self._due(scope, status)
        if not entries:
            return True
        return await run_in_threadpool(_written, scope["app"].state.parts.rules.audit, entries) or outcome != DONE

    def _due(self, scope: Scope, status: int) -> tuple[list[Entry], str | None]:
        """What has to be written with an answer, and what became of its request."""
        found: Asked = scope[ASKED]
        outcome = _outcome(scope, found, status)
        if outcome is None:
            return [], None
        entry = _entry(scope, found, outcome, status)
        return [entry] if outcome != REFUSED else self._folded.add(_kind(found, entry), entry), outcome


def _written(log: AuditLog, entries: list[Entry]) -> bool:
    """Whether the audit log has taken all of these; the service's own log has the others."""
    for at, entry in enumerate(entries):
        try:
            log.append(entry)
        except UnreachableError as error:
            for left in entries[at:]:
                _LOG.error("%s; not recorded: %s", error, json.dumps(asdict(left), ensure_ascii=False))
            return False
    return True


def _status(message: Message) -> int | None:
    """The status of an answer that begins; a socket that is closed before it was opened is answered by 403."""
    match message["type"]:
        case "http.response.start" | "websocket.http.response.start":
            return int(message["status"])
        case "websocket.close":
            return 403
        case "websocket.accept":
            return 101
        case _:
            return None


def _later(message: Message) -> int | None:
    """What an open socket is closed for, where that is a refusal."""
    return REFUSALS.get(message.get("code", 0)) if message["type"] == "websocket.close" else None


def _outcome(scope: Scope, found: Asked, status: int) -> str | None:
    if status in _REFUSALS or found.hidden:
        return REFUSED
    if not changes(scope, found.action):
        return None
    if 200 <= status < 400:
        return DONE
    return FAILED if status >= 500 and found.admitted else None


def _entry(scope: Scope, found: Asked, outcome: str, status: int) -> Entry:
    who, tenant = (found.principal.subject, found.principal.tenant) if found.principal else ("", "")
    path = path_of(scope)
    action = found.action or f"{scope.get('method', 'GET')} {path}"
    when = datetime.now(UTC).isoformat(timespec="microseconds")
    return Entry(when, who, tenant, action, path, outcome, status, scope[REQUEST_ID], client_of(HTTPConnection(scope)))


def _kind(found: Asked, entry: Entry) -> Hashable:
    # Whoever is unknown, or over their limit, can ask for any path, as often as they like.
    path = entry.resource if found.principal and entry.status != 429 else ""
    action = found.action  # without one the entry's carries the path
    return (entry.who, entry.tenant, neighbourhood(entry.address), action, entry.status, path)
