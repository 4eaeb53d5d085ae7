"""What the service predicts with: the bundle in service, batches, and results that are kept."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from finsight.domain.reference import Reference
from finsight.pipeline.explain import Explanation, explain
from finsight.pipeline.predict import Model
from finsight.service.batching import Batcher, Compute, FullError, Limits
from finsight.service.meters import Meters
from finsight.service_ports import ResultCache

Rows = NDArray[np.float64]
_FLOAT = np.dtype("<f8")  # of a kept row: replicas may differ in byte order
_EXPLAINING = 4  # explanations that may be under way or wait; each asks for as many texts as a text has words
_AT_ONCE = 32  # texts of an explanation in the queue: other requests' go between them
_PUTS = 64  # batches whose results may wait to be shared


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """A bundle in service.

    :param digest: names it (see :func:`finsight.bundle.bundle_digest`).
    :param version: its number in the registry; None where it is a folder.
    :param scores: what it had on its test rows, by metric.
    :param reference: what its predictions are held against; None where that is not known.
    """

    model: Model
    digest: str
    version: int | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    reference: Reference | None = None

    def key(self, text: str) -> str:
        """What the result of a text is kept under: another bundle or format has another."""
        return hashlib.sha256("\0".join((self.digest, self.model.format, text)).encode()).hexdigest()

    def check(self) -> str:
        """Predict, as health asks; in a few words with what."""
        self.model.predict(["Operating profit rose."])
        return f"{self.model.format} of {self.digest[:12]}"

    def warm(self) -> None:
        """Predict once in each way, so that no request waits for what is made when it is first needed."""
        self.model.predict(["Operating profit rose."])
        self.model.predict([f"Operating profit rose to EUR {n} mn from EUR {n - 1} mn a year before." for n in range(64)])


class Predictions:
    """Answers texts with the bundle in service, which may be swapped at any time.

    :param memory: results that this process keeps; None for none.
    :param shared: results that replicas share; None for none. It is asked in a lane, once a batch.
    """

    def __init__(
        self,
        served: Served,
        meters: Meters,
        limits: Limits = Limits(),  # noqa: B008  (frozen)
        memory: ResultCache | None = None,
        shared: ResultCache | None = None,
    ) -> None:
        self._meters, self._memory, self._shared = meters, memory, shared
        self._batcher = Batcher(limits, meters.batch.observe)
        self._putting, self._puts = ThreadPoolExecutor(1, thread_name_prefix="share"), threading.Semaphore(_PUTS)
        self._explaining = 0
        self._explainer = ThreadPoolExecutor(1, thread_name_prefix="explain")
        meters.waiting.set_function(lambda: self._batcher.waiting)
        meters.lanes.set_function(lambda: self._batcher.busy)
        self.swap(served)

    @property
    def served(self) -> Served:
        """The bundle in service."""
        return self._served

    def swap(self, served: Served) -> None:
        """Answer with another bundle from now on; what was asked before is still answered by the one it was asked of."""
        self._served = served
        self._compute = self._through(self._shared, served) if self._shared else served.model.probabilities
        self._meters.serves(served.digest, served.version, served.model.format)
        self._meters.predicted.begin(served.model.labels, served.scores, served.reference)

    async def ask(self, texts: Sequence[str]) -> tuple[Served, Rows]:
        """Probabilities (n, k) of texts, and the bundle that gave all of them.

        :raises FullError: when too many texts wait.
        """
        served, compute = self._served, self._compute
        rows = await self._rows(served, compute, texts)
        self._saw(served, rows)
        return served, rows

    async def explain(self, texts: Sequence[str]) -> tuple[Served, Rows, list[Explanation]]:
        """Like :meth:`ask`, with what each word does for its text's label.

        :raises FullError: likewise, or when too many explanations wait.
        """
        if self._explaining >= _EXPLAINING:
            raise FullError(2)
        served, compute = self._served, self._compute
        loop = asyncio.get_running_loop()

        wanted = True

        def probs(asked: Sequence[str]) -> Rows:
            found = []
            for start in range(0, len(asked), _AT_ONCE):
                if not wanted:  # whoever asked is gone, and this thread can't be cancelled
                    raise asyncio.CancelledError
                some = self._rows(served, compute, asked[start : start + _AT_ONCE])
                found.append(asyncio.run_coroutine_threadsafe(some, loop).result())
            return np.concatenate(found)

        self._explaining += 1
        try:
            found = await loop.run_in_executor(self._explainer, partial(explain, probs, texts))
            rows = await self._rows(served, compute, texts)
            self._saw(served, rows)
            return served, rows, found
        finally:
            wanted = False
            self._explaining -= 1

    def _saw(self, served: Served, rows: Rows) -> None:
        if served is self._served:  # the last answers of the bundle before are not this one's
            self._meters.predicted.saw(rows)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Around the life of the service: at the end, threads are let go."""
        try:
            yield
        finally:
            for threads in (self._explainer, self._putting):  # an explanation still needs this loop to end
                await asyncio.to_thread(threads.shutdown, cancel_futures=True)
            self._batcher.close()

    async def _rows(self, served: Served, compute: Compute, texts: Sequence[str]) -> Rows:
        if self._memory is None:
            return await self._batcher.ask(compute, texts)
        keys = [served.key(text) for text in texts]
        k = len(served.model.labels)
        found = {key: _row(value, k) for key, value in zip(keys, self._memory.get(keys), strict=True)}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if found[key] is None}
        self._meters.looked_up("memory", len(found) - len(missing), len(missing))
        if missing:
            rows = await self._batcher.ask(compute, list(missing.values()))
            new = dict(zip(missing, rows, strict=True))
            self._memory.put({key: _value(row) for key, row in new.items()})
            found.update(new)
        return np.array([found[key] for key in keys])

    def _through(self, shared: ResultCache, served: Served) -> Compute:
        k = len(served.model.labels)

        def put(rows: dict[str, Rows]) -> None:
            try:
                shared.put({key: _value(row) for key, row in rows.items()})
            finally:
                self._puts.release()

        def compute(texts: Sequence[str]) -> Rows:
            keys = [served.key(text) for text in texts]
            found = {key: _row(value, k) for key, value in zip(keys, shared.get(keys), strict=True)}
            missing = {key: text for key, text in zip(keys, texts, strict=True) if found[key] is None}
            self._meters.looked_up("shared", len(found) - len(missing), len(missing))
            if missing:
                new = dict(zip(missing, served.model.probabilities(list(missing.values())), strict=True))
                found.update(new)
                if self._puts.acquire(blocking=False):  # otherwise the cache is slower than the lanes: it does without these
                    self._putting.submit(put, new)
            return np.array([found[key] for key in keys])

        return compute


def _value(row: Rows) -> bytes:
    return row.astype(_FLOAT).tobytes()


def _row(value: bytes | None, k: int) -> Rows | None:
    """A kept row of ``k`` probabilities; None where there is none, or what is kept can be none."""
    if value is None or len(value) != k * _FLOAT.itemsize:
        return None
    row = np.frombuffer(value, _FLOAT)
    return row if abs(float(row.sum()) - 1) < 1e-6 and float(row.min()) >= 0 else None
