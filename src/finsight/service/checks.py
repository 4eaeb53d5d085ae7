"""The service's dependencies, looked at: each in a thread of its own, so that none holds up another, nor whoever asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from finsight.adapters.bounded import begun
from finsight.bootstrap.health import Questions
from finsight.errors import FinsightError

PATIENCE = 2.0  # seconds that whoever asks waits for an answer
FRESH = 5.0  # seconds that an answer counts: strangers may ask as often as they like


@dataclass(frozen=True, slots=True)
class Finding:
    """How a dependency is.

    :param seconds: that its answer took, or that there has been none.
    :param detail: may name an address.
    """

    ok: bool
    seconds: float
    detail: str


class _Check:
    """One dependency. It is asked again once it has answered: one that hangs takes one thread."""

    def __init__(self, question: Callable[[], str]) -> None:
        self._question = question
        self._answer: asyncio.Future[Finding] | None = None
        self._since = 0.0

    def _asked(self) -> Finding:
        began = time.monotonic()
        try:
            ok, detail = True, self._question()
        except (FinsightError, OSError) as error:
            ok, detail = False, " ".join(str(error).split())
        except Exception as error:  # noqa: BLE001  (an edge: health says that something is wrong, whatever it is)
            ok, detail = False, f"{type(error).__name__}, which nobody foresaw"
        return Finding(ok, time.monotonic() - began, detail)

    async def finding(self) -> Finding:
        now = time.monotonic()
        if self._answer is None or (self._answer.done() and now - self._since > FRESH):
            self._answer, self._since = asyncio.wrap_future(begun(self._asked)), now
        # This leaves nothing at an answer that does not come, however often it is waited for.
        await asyncio.wait([self._answer], timeout=max(0.0, self._since + PATIENCE - now))
        return self._answer.result() if self._answer.done() else Finding(False, time.monotonic() - self._since, "it has not answered yet")


class Checks:
    """What is asked by ``/readyz`` and ``/healthz``."""

    def __init__(self, questions: Questions | None = None) -> None:
        self._checks = {name: _Check(question) for name, question in (questions or {}).items()}

    async def findings(self, *names: str) -> dict[str, Finding]:
        """How the named dependencies are, or all; within :data:`PATIENCE`."""
        wanted = {name: check for name, check in self._checks.items() if name in names or not names}
        found = await asyncio.gather(*(check.finding() for check in wanted.values()))
        return dict(zip(wanted, found, strict=True))
