"""A client for bench/serve.py, in a process of its own: python client.py URL BODIES SECONDS CLIENTS RATE. The key is in BENCH_KEY.

With RATE 0 each client asks again once it is answered (as wrk does); otherwise requests come at random times, RATE a second on average,
however long answers take. One line of JSON: requests by status (lost: begun and not answered; closed: nobody took it), p50 and p99 of
the good ones in ms.
"""

import asyncio
import itertools
import json
import os
import random
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

import aiohttp

MOST = 4000  # requests without an answer, from which on a client on schedule gives up


async def main(url: str, bodies: list[bytes], seconds: float, clients: int, rate: float) -> dict[str, object]:
    statuses: Counter[str] = Counter()
    good: list[float] = []
    texts = itertools.cycle(bodies)
    headers = {"Content-Type": "application/json", "X-API-Key": os.environ.get("BENCH_KEY", "")}
    end = time.perf_counter() + seconds

    async def ask(session: aiohttp.ClientSession) -> None:
        began = time.perf_counter()
        try:
            async with session.post(url, data=next(texts)) as answer:
                await answer.read()
                statuses[str(answer.status)] += 1
                if answer.status == 200:
                    good.append(1000 * (time.perf_counter() - began))
        except aiohttp.ClientConnectorError:
            statuses["closed"] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            statuses["lost"] += 1
            print(f"lost: {error!r}", file=sys.stderr)

    async def again_and_again(session: aiohttp.ClientSession) -> None:
        while time.perf_counter() < end:
            await ask(session)

    async def on_schedule(session: aiohttp.ClientSession) -> None:
        chance, due, open_ = random.Random(0), time.perf_counter(), set()
        while due < end and len(open_) < MOST:
            due += chance.expovariate(rate)
            await asyncio.sleep(due - time.perf_counter())
            task = asyncio.create_task(ask(session))
            open_.add(task)
            task.add_done_callback(open_.discard)
        await asyncio.gather(*open_)

    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:
        await (on_schedule(session) if rate else asyncio.gather(*(again_and_again(session) for _ in range(clients))))
    cuts = statistics.quantiles(good, n=100) if len(good) > 1 else [float("nan")] * 99
    return {"statuses": statuses, "seconds": seconds, "p50": cuts[49], "p99": cuts[98]}


if __name__ == "__main__":
    url, path, *numbers = sys.argv[1:]
    seconds, clients, rate = map(float, numbers)
    print(json.dumps(asyncio.run(main(url, Path(path).read_bytes().splitlines(), seconds, int(clients), rate))))
