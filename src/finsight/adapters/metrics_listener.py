"""A small HTTP server beside the work that shows metrics to Prometheus, without a credential: for loopback, or a network of one's own."""

from __future__ import annotations

import errno
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from finsight.errors import FinsightError, ParamsError

SECONDS = 15.0
"""That a connection may last: Prometheus gives up after ten."""
_MOST = 32  # connections at once, each of which has a thread


class TakenError(FinsightError):
    """Somebody listens there already."""


def add_process(registry: CollectorRegistry) -> None:
    """Add what Prometheus knows of any process: processor, memory, open files, the interpreter."""
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)


@contextmanager
def shown(registry: CollectorRegistry, address: str, variable: str) -> Iterator[None]:
    """Answer every GET at ``address`` with the metrics of ``registry`` as long as the block runs.

    :param address: ``port`` of loopback, ``host:port`` or ``[host]:port``; empty: nowhere.
    :param variable: where it is from, for errors.
    :raises ParamsError: when it is no address of this machine.
    :raises TakenError: when something listens there already.
    """
    if not address:
        yield
        return
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ParamsError(f"{variable}: got {address!r}; expected host:port, a port of 127.0.0.1, or nothing")
    try:
        server = _listening(host.strip("[]") or "127.0.0.1", int(port), registry)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise TakenError(f"{variable}: something listens on {address} already; choose another port, or none") from None
        raise ParamsError(f"{variable}: can't listen on {address}: {error.strerror or error}") from None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingWSGIServer):
    """Has few connections at once, and ends those that last too long, however it is that they do."""

    def __init__(self, *arguments: Any) -> None:
        self._since = dict[Any, float]()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """See :class:`socketserver.BaseServer`."""
        if len(self._since) >= _MOST:
            self.shutdown_request(request)
            return
        self._since[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """See :class:`socketserver.BaseServer`."""
        self._since.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Twice a second."""
        for request, since in list(self._since.items()):
            if time.monotonic() - since > SECONDS:
                with suppress(OSError):  # it has just ended
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone, or was sent away, is no error of ours."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Scrapes are no lines of the log."""


def _listening(host: str, port: int, registry: CollectorRegistry) -> _Server:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]

    class Server(_Server):
        address_family = family

    return make_server(str(address[0]), port, make_wsgi_app(registry), Server, _Quiet)
