"""A bound on requests under way."""

import asyncio

import httpx
from fastapi import FastAPI

from finsight.service.crowd import Crowd
from finsight.service.envelope import Envelope


def test_what_is_too_much_is_refused_at_once_and_health_is_not() -> None:
    gate = asyncio.Event()
    app = FastAPI()
    app.add_middleware(Crowd, most=2)
    app.add_middleware(Envelope)

    @app.get("/slow")
    async def slow() -> str:
        await gate.wait()
        return "done"

    @app.get("/readyz")
    async def ready() -> str:
        return "ready"

    async def scenario() -> None:
        async with asyncio.timeout(10), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            inside = [asyncio.create_task(client.get("/slow")) for _ in range(2)]
            await asyncio.sleep(0.05)
            refused = await client.get("/slow")
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
            assert refused.json()["type"] == "urn:finsight:problem:busy"
            assert refused.json()["correlation_id"] == refused.headers["X-Request-ID"]
            assert (await client.get("/readyz")).status_code == 200
            gate.set()
            assert [(await one).status_code for one in inside] == [200, 200]
            assert (await client.get("/slow")).status_code == 200

    asyncio.run(scenario())
