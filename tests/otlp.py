"""A receiver of OTLP over HTTP, which decodes what comes."""

from __future__ import annotations

import gzip
import http.server
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from servers import serving


@dataclass(frozen=True)
class Received:
    """A span as it came."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    kind: int
    error: bool
    seconds: float
    attributes: dict[str, Any]
    events: list[dict[str, Any]]


@dataclass
class Receiver:
    url: str = ""
    spans: list[Received] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def named(self, service: str, name: str) -> list[Received]:
        with self.lock:
            return [span for span in self.spans if (span.service, span.name) == (service, name)]

    def above(self, span: Received) -> list[Received]:
        """What a span is below, the nearest first."""
        by_id = {one.id: one for one in self.spans}
        found = []
        while span.parent in by_id:
            span = by_id[span.parent]
            found.append(span)
        return found


def _plain(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@contextmanager
def receiving() -> Iterator[Receiver]:
    found = Receiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            unpack = {"gzip": gzip.decompress, "deflate": zlib.decompress}.get(self.headers.get("Content-Encoding", ""), lambda b: b)
            assert self.path == "/v1/traces"
            request = ExportTraceServiceRequest.FromString(unpack(body))
            spans = [
                Received(
                    _plain(group.resource.attributes)["service.name"],
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.kind,
                    span.status.code == 2,
                    (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                    _plain(span.attributes),
                    [{"name": event.name, **_plain(event.attributes)} for event in span.events],
                )
                for group in request.resource_spans
                for scope in group.scope_spans
                for span in scope.spans
            ]
            with found.lock:
                found.spans += spans
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            pass

    with serving(Handler) as found.url:
        yield found
