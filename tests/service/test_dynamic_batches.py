"""Texts of concurrent requests, computed together."""

import asyncio
import threading
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from finsight.service.batching import Batcher, FullError, Limits


class Lengths:
    """Computes the length of each text; keeps the batches, and holds them up while ``gate`` is closed."""

    def __init__(self, open_: bool = True) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        if open_:
            self.gate.set()

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float64]:
        self.batches.append(list(texts))
        assert self.gate.wait(10)
        if "bad" in texts:
            raise ValueError("bad")
        return np.array([[float(len(text))] for text in texts])


def run(limits: Limits, scenario: Any) -> list[int]:
    """Run a scenario with a batcher that nothing must be left in; the sizes of the batches that it began."""
    sizes: list[int] = []

    async def all_of_it() -> None:
        batcher = Batcher(limits, sizes.append)
        async with asyncio.timeout(20):
            await scenario(batcher)
        assert (batcher.waiting, batcher.busy) == (0, 0)
        batcher.close()

    asyncio.run(all_of_it())
    return sizes


async def together(*work: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    """Begin all, in this order."""
    tasks = [asyncio.create_task(one) for one in work]
    await asyncio.sleep(0.01)
    return tasks


def test_a_lone_request_does_not_wait() -> None:
    compute = Lengths()

    async def scenario(batcher: Batcher) -> None:
        began = time.monotonic()
        for _ in range(3):
            assert (await batcher.ask(compute, ["abc"])).tolist() == [[3.0]]
        assert time.monotonic() - began < 1

    assert run(Limits(deadline=5.0), scenario) == [1, 1, 1]


def test_what_comes_while_a_batch_is_computed_is_computed_together_and_each_gets_its_own() -> None:
    compute = Lengths(open_=False)

    async def scenario(batcher: Batcher) -> None:
        tasks = await together(*(batcher.ask(compute, ["x" * n, "y" * (n + 1)]) for n in range(5)))
        assert batcher.waiting == 8
        compute.gate.set()
        for n, answer in enumerate(await asyncio.gather(*tasks)):
            assert answer.tolist() == [[n], [n + 1]]

    assert run(Limits(lanes=1), scenario) == [2, 8]


def test_beside_other_batches_a_request_waits_for_as_many_as_usual_and_no_longer_than_the_deadline() -> None:
    first, rest = Lengths(open_=False), Lengths()

    async def scenario(batcher: Batcher) -> None:
        batcher._size = 3.0
        busy, lone = await together(batcher.ask(first, ["a"]), batcher.ask(rest, ["b"]))
        assert rest.batches == []  # a lane is free, and it waits
        began = time.monotonic()
        await lone
        assert 0.1 < time.monotonic() - began < 1
        batcher._size = 3.0
        await asyncio.gather(*await together(*(batcher.ask(rest, [text]) for text in "cde")))
        first.gate.set()
        await busy

    run(Limits(lanes=2, deadline=0.2), scenario)
    assert rest.batches == [["b"], ["c", "d", "e"]]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (Limits(lanes=1, texts=4), [1, 4, 4, 2]),
        (Limits(lanes=1, characters=30), [1, 3, 3, 3, 1]),
        (Limits(lanes=1, characters=5), [1] * 11),  # a text that is more than a batch may have is a batch of its own
    ],
)
def test_a_large_request_is_computed_in_batches_within_the_limits(limits: Limits, expected: list[int]) -> None:
    compute = Lengths(open_=False)
    texts = [f"{n:010}" for n in range(10)]

    async def scenario(batcher: Batcher) -> None:
        small, large = await together(batcher.ask(compute, ["a"]), batcher.ask(compute, texts))
        compute.gate.set()
        assert (await small).tolist() == [[1.0]]
        assert (await large).tolist() == [[10.0]] * 10

    assert run(limits, scenario) == expected
    assert [text for batch in compute.batches[1:] for text in batch] == texts


def test_what_is_too_much_is_refused_as_a_whole_and_says_when_to_come_again() -> None:
    compute = Lengths(open_=False)

    async def scenario(batcher: Batcher) -> None:
        tasks = await together(batcher.ask(compute, ["a"]), batcher.ask(compute, ["b", "c"]))
        with pytest.raises(FullError) as full:
            await batcher.ask(compute, ["d", "e"])
        assert full.value.seconds == 1  # nothing was computed yet, so nobody knows
        tasks += await together(batcher.ask(compute, ["f"]))
        compute.gate.set()
        await asyncio.gather(*tasks)
        assert (await batcher.ask(compute, ["g"] * 9)).shape == (9, 1)  # more than may wait, and nothing waits

    assert run(Limits(lanes=1, waiting=3), scenario) == [1, 3, 9]
    assert "d" not in "".join(text for batch in compute.batches for text in batch)


def test_the_time_to_come_again_grows_with_what_waits() -> None:
    async def scenario(batcher: Batcher) -> None:
        batcher._rate = 2.0
        compute = Lengths(open_=False)
        tasks = await together(batcher.ask(compute, ["a"]), batcher.ask(compute, ["b"] * 10))
        with pytest.raises(FullError) as full:
            await batcher.ask(compute, ["c"])
        assert full.value.seconds == 5
        compute.gate.set()
        await asyncio.gather(*tasks)

    run(Limits(lanes=1, waiting=10), scenario)


def test_a_slow_model_has_a_shorter_queue() -> None:
    async def scenario(batcher: Batcher) -> None:
        batcher._rate = 10.0
        compute = Lengths(open_=False)
        asked = (batcher.ask(compute, [str(n)]) for n in range(1000))
        tasks = await together(*asked)
        refused = [task for task in tasks if task.done()]
        assert len(refused) == 1000 - 1 - 30  # one is computed; three seconds' work waits
        compute.gate.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(one) for one in found} == {FullError, np.ndarray}

    run(Limits(lanes=1, texts=4, patience=3.0), scenario)


def test_a_request_whose_client_is_gone_is_not_computed() -> None:
    compute = Lengths(open_=False)

    async def scenario(batcher: Batcher) -> None:
        begun, gone, stays = await together(*(batcher.ask(compute, [text]) for text in ("begun", "gone", "stays")))
        gone.cancel()
        begun.cancel()  # it is being computed: its answer is thrown away
        await asyncio.sleep(0.01)
        assert batcher.waiting == 1
        compute.gate.set()
        assert (await stays).tolist() == [[5.0]]

    run(Limits(lanes=1), scenario)
    assert compute.batches == [["begun"], ["stays"]]


def test_an_error_hits_its_batch_alone() -> None:
    compute = Lengths(open_=False)

    async def scenario(batcher: Batcher) -> None:
        good, beside, split, after = await together(
            batcher.ask(compute, ["a"]),
            batcher.ask(compute, ["bb"]),
            batcher.ask(compute, ["bad", "c", "d", "e"]),
            batcher.ask(compute, ["fff"]),
        )
        compute.gate.set()
        assert (await good).tolist() == [[1.0]]
        for failed in (beside, split):  # "bb" is in one batch with "bad"; what is left of the split request is dropped
            with pytest.raises(ValueError, match="bad"):
                await failed
        assert (await after).tolist() == [[3.0]]
        assert (await batcher.ask(compute, ["gggg"])).tolist() == [[4.0]]

    run(Limits(lanes=1, texts=2), scenario)
    assert compute.batches == [["a"], ["bb", "bad"], ["fff"], ["gggg"]]


def test_two_models_share_no_batch_and_keep_their_order() -> None:
    old, new = Lengths(open_=False), Lengths()

    async def scenario(batcher: Batcher) -> None:
        asked = [(old, "a"), (old, "b"), (new, "c"), (old, "d"), (new, "e"), (new, "f")]
        tasks = await together(*(batcher.ask(compute, [text]) for compute, text in asked))
        old.gate.set()
        await asyncio.gather(*tasks)

    assert run(Limits(lanes=1), scenario) == [1, 1, 1, 1, 2]
    assert (old.batches, new.batches) == ([["a"], ["b"], ["d"]], [["c"], ["e", "f"]])
