"""A small HTTP server beside the work that shows metrics to Prometheus, without a credential: for loopback, or a network of one's own."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from finsight.errors import FinsightError, ParamsError


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
        server, thread = start_http_server(int(port), host.strip("[]") or "127.0.0.1", registry)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise TakenError(f"{variable}: something listens on {address} already; choose another port, or none") from None
        raise ParamsError(f"{variable}: can't listen on {address}: {error.strerror or error}") from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
