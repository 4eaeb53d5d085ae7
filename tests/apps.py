"""Apps around parts that tests choose, over real HTTP."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI
from numpy.typing import NDArray

from conftest import LABELS
from finsight.adapters.windows import SlidingWindows, amounts
from finsight.domain.access import Principal
from finsight.pipeline.predict import Model
from finsight.service.access import Credentials, Gate
from finsight.service.app import create_app
from finsight.service.gate import Credentialing
from finsight.service.jobs import Jobs
from finsight.service.meters import Meters
from finsight.service.parts import Parts
from finsight.service.policy_file import PolicyFile
from finsight.service.predictions import Predictions, Served
from finsight.service.rules import Limits, Rules
from finsight.service.uploads import Scoring
from finsight.service.wire import PatientProtocol
from memory_audit import MemoryAuditLog
from servers import free_port


class Badges:
    """Credentials that say who presents them: ``subject:tenant:role,role:scope,scope``."""

    def principal(self, presented: Credentials) -> Principal | None:
        subject, *rest = (presented.key or "").split(":")
        if not rest:
            return None
        tenant, roles, scopes = [*rest, "", ""][:3]
        return Principal(subject, tenant, frozenset(filter(None, roles.split(","))), frozenset(filter(None, scopes.split(","))))

    lately = principal

    def still(self, presented: Credentials, principal: Principal) -> Principal | None:
        return self.principal(presented)

    def vouches(self, principal: Principal, shown: Callable[[str], bool]) -> bool:
        return True  # a badge is always good


def rules(allowance: str = "", **given: Any) -> Rules:
    """Rules with the policy that is shipped, and all else in memory."""
    return Rules(**{"policy": PolicyFile(), "limits": Limits(None, SlidingWindows(amounts(allowance))), "audit": MemoryAuditLog(), **given})


class Undecided:
    """A classifier to whom all labels are equal."""

    labels = LABELS

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.zeros((len(texts), len(LABELS)), dtype=np.float32)


def predicting() -> dict[str, Any]:
    """The parts of an app that predict, without a bundle."""
    meters = Meters()
    found = Predictions(Served(Model(Undecided(), {}, None, "fake"), "0" * 64), meters)
    return {"predictions": found, "meters": meters, "running": (found.running,)}


def app_with(
    gate: Gate | None = None,
    held_to: Rules | None = None,
    own: Credentialing | None = None,
    jobs: Jobs | None = None,
    scoring: Scoring | None = None,
) -> FastAPI:
    """An app around a model that knows nothing; without makers of credentials, unless some are given: no such route answers then."""
    return create_app(Parts(gate=gate or Badges(), rules=held_to or rules(), own=own, jobs=jobs, scoring=scoring, **predicting()))  # type: ignore[arg-type]


@contextmanager
def served(app: FastAPI) -> Iterator[httpx.Client]:
    """Run an app as the service does; a client of it."""
    port = free_port()
    config = uvicorn.Config(
        app, port=port, http=PatientProtocol, log_level="warning", server_header=False, proxy_headers=False, timeout_keep_alive=75
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            while thread.is_alive() and not server.started:
                time.sleep(0.01)
            yield client
    finally:
        server.should_exit = True
        thread.join(20)
