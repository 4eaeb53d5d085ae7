"""Predictions over batches, kept results and swaps."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import LABELS, Project
from finsight import runtime
from finsight.adapters.memory_results import MemoryResults
from finsight.adapters.redis_results import RedisResults
from finsight.pipeline.explain import explain
from finsight.pipeline.predict import Model
from finsight.service.batching import FullError, Limits
from finsight.service.meters import Meters
from finsight.service.predictions import Predictions, Served
from finsight.service_ports import ResultCache


class Counting:
    """A classifier whose logits are the text's length and a constant; it keeps what it was asked."""

    labels = LABELS

    def __init__(self, constant: float = 0.0) -> None:
        self.constant, self.asked, self.gate = constant, [], threading.Event()
        self.gate.set()

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        assert self.gate.wait(10)
        self.asked += texts
        return np.array([[len(text) / 10, self.constant, 0] for text in texts], dtype=np.float32)


def served(classifier: Any, digest: str = "one") -> Served:
    return Served(Model(classifier, {"negative": -1, "neutral": 0, "positive": 1}, 0.5, "fake"), digest)


def with_predictions(scenario: Callable[[Predictions], Awaitable[None]], first: Served, **options: Any) -> Meters:
    meters = Meters()

    async def all_of_it() -> None:
        predictions = Predictions(first, meters, **options)
        async with asyncio.timeout(20), predictions.running():
            await scenario(predictions)

    asyncio.run(all_of_it())
    return meters


def lookups(meters: Meters, cache: str) -> tuple[float | None, float | None]:
    """Hits and misses."""
    hits, misses = (
        meters.registry.get_sample_value("finsight_result_cache_total", {"cache": cache, "found": found}) for found in ("yes", "no")
    )
    return hits, misses


def test_a_text_is_computed_once_in_memory() -> None:
    counting = Counting()

    async def scenario(predictions: Predictions) -> None:
        _, first = await predictions.ask(["a", "bb", "a"])
        _, again = await predictions.ask(["bb", "a", "ccc"])
        assert np.array_equal(first[[1, 0]], again[:2])
        assert np.array_equal(first, counting_rows(["a", "bb", "a"]))

    def counting_rows(texts: list[str]) -> NDArray[np.float64]:
        return served(Counting()).model.probabilities(texts)

    meters = with_predictions(scenario, served(counting), memory=MemoryResults())
    assert counting.asked == ["a", "bb", "ccc"]
    assert lookups(meters, "memory") == (2.0, 3.0)


def test_replicas_share_results_through_redis(redis_url: str) -> None:
    ours, theirs = Counting(), Counting()

    async def scenario(predictions: Predictions) -> None:
        await predictions.ask(["a", "bb"])

    for counting in (ours, theirs):
        cache = RedisResults(redis_url)
        meters = with_predictions(scenario, served(counting), shared=cache)
        cache.close()
    assert (ours.asked, theirs.asked) == (["a", "bb"], [])
    assert lookups(meters, "shared") == (2.0, 0.0)


@pytest.mark.parametrize("value", [b"", b"x" * 24, np.array([0.5, 0.6, -0.1]).tobytes(), np.array([0.5, 0.5]).tobytes(), b"\xff" * 24])
def test_what_can_be_no_result_is_computed_again(value: bytes) -> None:
    counting = Counting()
    cache = MemoryResults()
    cache.put({served(counting).key("a"): value})

    async def scenario(predictions: Predictions) -> None:
        assert (await predictions.ask(["a"]))[1].sum() == pytest.approx(1)

    with_predictions(scenario, served(counting), shared=cache)
    assert counting.asked == ["a"]


class Slow:
    """A cache that is slower than anything else here."""

    def __init__(self) -> None:
        self.gate, self.puts = threading.Event(), 0

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        return [None] * len(keys)

    def put(self, entries: Mapping[str, bytes]) -> None:
        self.gate.wait(10)
        self.puts += 1


def test_a_cache_that_writes_slowly_holds_nobody_up_and_nothing_piles_up() -> None:
    slow = Slow()

    async def scenario(predictions: Predictions) -> None:
        for n in range(200):
            await predictions.ask([str(n)])
        slow.gate.set()

    shared: ResultCache = slow
    with_predictions(scenario, served(Counting()), shared=shared)
    assert slow.puts <= 64


def test_a_swap_between_two_batches_leaves_nobody_without_an_answer_and_lets_the_old_model_go() -> None:
    old, new = Counting(), Counting(constant=5.0)
    old.gate.clear()
    second = served(new, "two")

    async def scenario(predictions: Predictions) -> None:
        first = served(old)
        gone = weakref.ref(first.model)
        predictions.swap(first)
        before = [asyncio.create_task(predictions.ask([text])) for text in ("a", "bb", "ccc")]
        await asyncio.sleep(0.01)
        predictions.swap(second)
        after = asyncio.create_task(predictions.ask(["a"]))
        await asyncio.sleep(0.01)
        old.gate.set()
        assert [one.digest for one, _ in await asyncio.gather(*before)] == ["one"] * 3
        assert (await after)[0] is second
        assert (await after)[1].argmax() == 1
        before.clear()
        del first
        await asyncio.sleep(0.01)
        gc.collect()
        assert gone() is None

    meters = with_predictions(scenario, second, limits=Limits(lanes=1), memory=MemoryResults())
    assert (old.asked, new.asked) == (["a", "bb", "ccc"], ["a"])
    info = {"bundle": "two", "version": "", "format": "fake"}
    assert meters.registry.get_sample_value("finsight_model_info", info) == 1
    assert meters.registry.get_sample_value("finsight_model_info", {**info, "bundle": "one"}) is None


def test_explanations_are_those_of_the_core_and_bounded(finished: Project) -> None:
    model = runtime.model(finished.root / "models/bundle", "onnx-fp32")
    texts = ["Profit rose sharply this year", "Sales fell"]

    async def scenario(predictions: Predictions) -> None:
        tasks = [asyncio.create_task(predictions.explain(texts)) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(FullError):
            await predictions.explain(texts)
        for _, rows, found in await asyncio.gather(*tasks):
            expected = explain(model.probabilities, texts)
            assert [one.label for one in found] == list(rows.argmax(axis=1))
            for one, other in zip(found, expected, strict=True):
                assert [word.text for word in one.words] == [word.text for word in other.words]
                assert [word.effect for word in one.words] == pytest.approx([word.effect for word in other.words], abs=1e-5)
        await predictions.explain(texts)

    with_predictions(scenario, Served(model, "x"), memory=MemoryResults())


def test_an_explanation_that_nobody_waits_for_ends(finished: Project) -> None:
    counting = Counting()

    async def scenario(predictions: Predictions) -> None:
        counting.gate.clear()
        task = asyncio.create_task(predictions.explain([" ".join(f"word{n}" for n in range(200))]))
        await asyncio.sleep(0.05)
        task.cancel()
        counting.gate.set()

    with_predictions(scenario, served(counting))
    assert len(counting.asked) <= 64
