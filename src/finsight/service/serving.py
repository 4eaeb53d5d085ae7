"""The service as a process: from a bundle to a server that ends well."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import FrameType

import click
import uvicorn

from finsight import logs, runtime, tracing
from finsight.bootstrap import health, released
from finsight.bootstrap import service as bootstrap
from finsight.bootstrap.credentials import ways_in
from finsight.bootstrap.observed import machine, service_metrics
from finsight.bootstrap.reference import reference
from finsight.bootstrap.sign_in import public_url, sign_in
from finsight.bundle import MANIFEST, bundle_digest
from finsight.files import read_json
from finsight.ports import ModelVersion
from finsight.service.app import create_app
from finsight.service.backstage import backstage
from finsight.service.batching import Limits
from finsight.service.checks import Checks
from finsight.service.client_address import networks
from finsight.service.entrance import admins_key, entrance, house_rules
from finsight.service.following import Follower
from finsight.service.jobs import Jobs
from finsight.service.life import Life
from finsight.service.meters import Meters
from finsight.service.parts import Parts
from finsight.service.predictions import Predictions, Served
from finsight.service.queue_watch import QueueWatch
from finsight.service.socket_protocol import LARGEST, PING, SocketProtocol
from finsight.service.sockets import SocketLimits, Sockets
from finsight.service.uploads import Scoring, sweep
from finsight.service.wire import PatientProtocol
from finsight.settings import Settings, load_settings

_LOG = logging.getLogger("finsight.service")
LIMIT = 30  # seconds that requests under way have to end
FAREWELL = 5.0  # seconds that sockets have to send what is under way
Running = tuple[Callable[[], AbstractAsyncContextManager[None]], ...]
IDLE = 75  # seconds a connection may be idle: longer than load balancers keep one, since whoever closes it may lose the other's request


class Server(uvicorn.Server):
    """Ends with 0 once all that it had taken is answered.

    :param notice: seconds between SIGTERM, from when on ``/readyz`` says no, and taking no more: whoever sends requests here learns of it.
    """

    def __init__(self, config: uvicorn.Config, life: Life, notice: float, websockets: Sockets) -> None:
        super().__init__(config)
        self._websockets = websockets
        self._life, self._notice, self._ends = life, notice, 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """The first signal begins the end, the second cuts the notice short, the third everything. None is raised again after that."""
        self.force_exit = self.should_exit
        self.should_exit = self._life.draining
        self._ends = time.monotonic() + self._notice
        self._life.draining = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See :class:`uvicorn.Server`. Each WebSocket says first what it owes, and that it ends; uvicorn would cut it off."""
        for server in self.servers:
            server.close()
        await self._websockets.drain(FAREWELL)
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        """See :class:`uvicorn.Server`: whether to end, asked ten times a second."""
        if self._life.draining and time.monotonic() >= self._ends:
            self.should_exit = True
        return await super().on_tick(counter)


def load(bundle: Path, version: ModelVersion | None) -> Served:
    """A bundle made ready to be served: fetched, checked, opened, warm.

    :raises ArtifactError: when it is not what it should be.
    """
    folder = bootstrap.checked_folder(bundle, version)
    graph = runtime.settled(folder, measuring=lambda: _LOG.warning("measuring once which format is the fastest on this host"))
    model, digest = runtime.model(folder, graph), bundle_digest(folder)
    scores = {name: score for name, score in read_json(folder / MANIFEST, "make export")["metrics"].items() if name != "n"}
    held_against = reference(digest, model.labels, version)
    if held_against is None:
        _LOG.warning("what the bundle was trained on is not in the reports at hand: drift is not measured")
    served = Served(model, digest, version.number if version else None, scores, held_against)
    served.warm()
    return served


def predictions(
    bundle: Path, settings: Settings, meters: Meters, limits: Limits | None = None, keeps: bool = True
) -> tuple[Predictions, Running, Callable[[], None]]:
    """What predicts with a bundle, what has to run for it, and what to call when an alias was moved.

    :param keeps: whether results are kept.
    """
    memory, shared = (bootstrap.memory_results(), bootstrap.shared_results(settings)) if keeps else (None, None)
    found = Predictions(load(bundle, bootstrap.version_now(bundle)), meters, limits or Limits(), memory, shared)
    if not bootstrap.follows(bundle):
        return found, (found.running,), lambda: None
    follower = Follower(found, meters, lambda: bootstrap.champion(bundle), lambda version: load(bundle, version), settings.follow_seconds)
    return found, (found.running, follower.running), follower.look_now


def run(bundle: Path, host: str, port: int, keeps: bool = True, worker: bool = True) -> None:
    """Verify and load ``bundle``, then serve until told to end; a key is made and printed when ``FINSIGHT_API_KEY`` is unset.

    :param keeps: whether results are kept.
    :param worker: whether to run jobs here too, where the settings name no Redis.
    :raises ParamsError: when a setting can't be, or would leave a public address open.
    """
    settings = load_settings()
    logs.begin("finsight-api", settings)
    ways, address = ways_in(settings, host), public_url(settings)  # before anything is loaded
    admins_key(settings)
    sweep()
    proxies, meters = networks(settings.trusted_proxies), Meters()
    found, running, promoted = predictions(bundle, settings, meters, keeps=keeps)
    with tracing.running("api"), backstage(settings, bundle, worker) as url, bootstrap.job_queue(url) as queue:
        gate, own, made = entrance(settings, host, url)
        watch = QueueWatch(queue)
        meters.registry.register(watch)
        meters.registry.register(machine())
        scoring = Scoring(bootstrap.artifact_store(), settings.max_upload, settings.max_lines)
        jobs = Jobs(queue, bootstrap.repository_jobs(bundle, scoring.store, lambda: (found.served.digest, found.served.version)).order)
        parts = Parts(
            found,
            gate,
            house_rules(settings, url),
            own,
            proxies,
            jobs,
            released.sessions(url),
            scoring=scoring,
            promoted=promoted,
            sign_in=sign_in(settings, ways, url),
            public_url=address,
            meters=meters,
            running=(*running, watch.running),
            sockets=Sockets(SocketLimits(at_once=settings.max_sockets)),
            checks=Checks({"bundle": lambda: found.served.check(), **health.questions(settings, url)}),
        )
        if made:
            click.echo(f"X-API-Key for this run: {made}   (set FINSIGHT_API_KEY to choose one)")
        click.echo(f"POST http://{host}:{port}/v1/predict, described by http://{host}:{port}/openapi.json")
        with service_metrics(meters.registry, settings):
            server(parts, host, port, settings.drain_seconds).run()


def server(parts: Parts, host: str, port: int, notice: float) -> Server:
    """A server of the app; see :class:`Server`."""
    config = uvicorn.Config(
        create_app(parts),
        host=host,
        port=port,
        http=PatientProtocol,
        log_config=None,  # finsight.logs has it
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # a client's address is the one that it connects from
        timeout_keep_alive=IDLE,
        timeout_graceful_shutdown=LIMIT,
        ws=SocketProtocol,
        ws_max_size=LARGEST,
        ws_ping_interval=PING,
        ws_ping_timeout=PING,
        ws_per_message_deflate=False,  # a few bytes could be a thousand times as many
    )
    return Server(config, parts.life, notice, parts.sockets)
