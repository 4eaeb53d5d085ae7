"""What the service counts of itself, for Prometheus."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finsight.adapters.metrics_listener import add_process
from finsight.service.close_codes import Close
from finsight.service.gone import CLIENT_GONE
from finsight.service.predicted import Predicted

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
UNKNOWN = "unknown"  # route of a request that fits none: its path is the client's, and there are many of those


class Meters:
    """One set an app; nothing here is told by a client, so there are few series."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # for every counter a series of when it began, which nothing reads
        self.registry = CollectorRegistry()
        add_process(self.registry)
        kept = self.registry
        route = ["method", "route"]
        self.requests = Counter("finsight_requests", "Requests that were answered.", [*route, "status"], registry=kept)
        self.seconds = Histogram(
            "finsight_request_seconds", "From a request's head to its whole answer.", route, buckets=_SECONDS, registry=kept
        )
        self.in_flight = Gauge("finsight_requests_in_flight", "Requests without their whole answer.", registry=kept)
        self.sockets = Gauge("finsight_sockets_open", "Sockets that are open.", ["route"], registry=kept)
        self.messages = Counter("finsight_socket_messages", "Messages of sockets, by who sent them.", ["route", "sender"], registry=kept)
        self.closed = Counter("finsight_sockets_closed", "Sockets that were open, by their close code.", ["route", "code"], registry=kept)
        self.batch = Histogram("finsight_batch_texts", "Texts that were computed together.", buckets=_TEXTS, registry=kept)
        self.waiting = Gauge("finsight_texts_waiting", "Texts that no lane has begun with.", registry=kept)
        self.lanes = Gauge("finsight_lanes_busy", "Batches that are being computed.", registry=kept)
        self.refused = Counter("finsight_predictions_refused", "Requests that found too many texts waiting.", registry=kept)
        self.gone = Counter("finsight_clients_gone", "Requests that were dropped since their client was gone.", registry=kept)
        self.cache = Counter("finsight_result_cache", "Texts that were looked up among results.", ["cache", "found"], registry=kept)
        self.swaps = Counter("finsight_model_swaps", "New champions, by what became of them.", ["outcome"], registry=kept)
        for outcome in ("swapped", "refused"):  # there before the first, which is no increase otherwise
            self.swaps.labels(outcome)
        self.predicted = Predicted()
        kept.register(self.predicted)
        self.model = Gauge("finsight_model_info", "1 for the bundle in service.", ["bundle", "version", "format"], registry=kept)

    def looked_up(self, cache: str, hits: int, misses: int) -> None:
        """Count what a cache had of some texts."""
        self.cache.labels(cache, "yes").inc(hits)
        self.cache.labels(cache, "no").inc(misses)

    def serves(self, digest: str, version: int | None, name: str) -> None:
        """Another bundle is in service."""
        self.model.clear()
        self.model.labels(digest, "" if version is None else str(version), name).set(1)


class Measured:
    """ASGI middleware around all others: counts each request and socket by the template of its route."""

    def __init__(self, app: ASGIApp, meters: Meters) -> None:
        self._app, self._meters = app, meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began = 500, time.perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._meters.in_flight.inc()
        try:
            await self._app(scope, receive, noted)
        finally:
            self._meters.in_flight.dec()
            method, route = endpoint_of(scope)
            self._meters.requests.labels(method, route, str(status)).inc()
            self._meters.seconds.labels(method, route).observe(time.perf_counter() - began)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A handshake is a request, with its status; what is open then has messages and a code in the end."""
        meters, status, code = self._meters, 0, 0

        async def heard() -> Message:
            nonlocal code
            message = await receive()
            if message["type"] == "websocket.receive":
                meters.messages.labels(endpoint_of(scope)[1], "client").inc()
            elif message["type"] == "websocket.disconnect":
                code = code or message.get("code") or _ABNORMAL
            return message

        async def said(message: Message) -> None:
            nonlocal status, code
            try:
                await send(message)
            except OSError:  # the client has gone
                code = code or _ABNORMAL
                raise
            match message["type"]:
                case "websocket.accept":
                    status = 101
                    meters.sockets.labels(endpoint_of(scope)[1]).inc()
                case "websocket.send":
                    meters.messages.labels(endpoint_of(scope)[1], "service").inc()
                case "websocket.http.response.start":
                    status = message["status"]
                case "websocket.close":
                    status, code = status or 403, code or message.get("code", Close.DONE)

        try:
            await self._app(scope, heard, said)
        finally:
            route = endpoint_of(scope)[1]
            status = status or (CLIENT_GONE if code else 500)
            meters.gone.inc(status == CLIENT_GONE)
            meters.requests.labels("GET", route, str(status)).inc()
            if status == 101:
                meters.sockets.labels(route).dec()
                meters.closed.labels(route, str(int(code or _ABNORMAL)) if code in _CODES else UNKNOWN).inc()


_ABNORMAL = 1006  # no close frame came
_CODES = frozenset({*Close, 1001, 1005, _ABNORMAL})  # a client may send any
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


def endpoint_of(scope: Scope) -> tuple[str, str]:
    """Method and route of a request; a client may write what it likes for a method too."""
    # FastAPI keeps a route's own path in scope["route"], and the one with the prefixes of its routers here; of a socket one further down.
    route = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    route = getattr(route, "starlette_route", None) or route
    method = scope.get("method", "GET")  # which a handshake is
    return method if method in _METHODS else UNKNOWN, getattr(route, "path", UNKNOWN)
