"""The app behind a real server on loopback, with its credentials in a live Redis."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr

from apps import predicting
from finsight.bootstrap.credentials import ways_in
from finsight.bootstrap.released import sessions
from finsight.bootstrap.sign_in import public_url, sign_in
from finsight.service.app import create_app
from finsight.service.client_address import networks
from finsight.service.entrance import entrance, house_rules
from finsight.service.gate import Credentialing
from finsight.service.jobs import Jobs
from finsight.service.parts import Parts
from finsight.service.policy_file import DEFAULT, PolicyFile
from finsight.settings import Settings

ADMIN_KEY = "the-admins-own-key-for-tests"


# The service's own, and a scorer who may make keys: for what a maker can't give.
POLICY = DEFAULT.read_text(encoding="utf-8").replace("jobs.create.score]", "jobs.create.score, keys.create, keys.read, keys.revoke]")


@dataclass(frozen=True)
class Live:
    """A client of the service, and the parts behind it."""

    http: httpx.Client
    own: Credentialing
    app: FastAPI

    def make(self, key: str = ADMIN_KEY, **asked: Any) -> dict[str, Any]:
        """A key, by the holder of another."""
        answer = self.http.post("/v1/keys", json={"name": "a key", "roles": ["scorer"], **asked}, headers={"X-API-Key": key})
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def buy(self, made: dict[str, Any], **form: str) -> httpx.Response:
        """A token for a key."""
        asked = {"grant_type": "client_credentials", "client_id": made["id"], "client_secret": made["client_secret"], **form}
        return self.http.post("/v1/auth/token", data=asked)

    def token(self, made: dict[str, Any], **form: str) -> str:
        """The same, of which nothing but the token matters."""
        answer = self.buy(made, **form)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def me(self, **headers: str) -> httpx.Response:
        """Who the service takes one for; ``X_API_Key`` is ``X-API-Key``."""
        return self.http.get("/v1/me", headers={name.replace("_", "-"): value for name, value in headers.items()})


@contextmanager
def live(redis_url: str, port: int = 0, jobs: Jobs | None = None, **settings: Any) -> Iterator[Live]:
    """A service with these settings."""
    chosen = Settings(**{"api_key": SecretStr(ADMIN_KEY), **settings})
    gate, own, _ = entrance(chosen, "127.0.0.1", redis_url)
    with TemporaryDirectory() as folder:
        policy = Path(folder, "policy.yaml")
        policy.write_text(POLICY, encoding="utf-8")
        held_to = replace(house_rules(chosen, redis_url), policy=PolicyFile(policy))
    page = {"sessions": sessions(redis_url), "sign_in": sign_in(chosen, ways_in(chosen, "127.0.0.1"), redis_url)}
    proxies, address = networks(chosen.trusted_proxies), public_url(chosen)
    app = create_app(Parts(gate=gate, rules=held_to, own=own, proxies=proxies, jobs=jobs, public_url=address, **page, **predicting()))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="debug", log_config=None, proxy_headers=False))
    with at_work(server) as at, httpx.Client(base_url=f"http://127.0.0.1:{at}", timeout=30) as http:
        yield Live(http, own, app)


@contextmanager
def at_work(server: uvicorn.Server) -> Iterator[int]:
    """A server in a thread; its port."""
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.handle_exit(signal.SIGTERM, None)
        thread.join(20)
        assert not thread.is_alive()
