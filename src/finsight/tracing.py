"""Traces (OpenTelemetry), and the correlation id that answers, logs, jobs and traces share.

Nothing is traced unless OTEL_EXPORTER_OTLP_ENDPOINT says where to; nothing of OpenTelemetry is imported then. A trace goes on from process
to process by W3C trace context: in the headers of a request, in what the queue keeps of a job, in TRACEPARENT for what a worker starts.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

from finsight import redaction
from finsight.errors import ParamsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

CORRELATION: ContextVar[str] = ContextVar("correlation_id", default="")
"""The id of what is being done: a request's, or that of the request that ordered a job."""
VARIABLE = "FINSIGHT_CORRELATION_ID"
_CORRELATION, _PARENT = "correlation_id", "traceparent"
SHARE = 0.05
"""Of predictions that are traced where OTEL_TRACES_SAMPLER says nothing: a span costs a tenth of what a prediction does."""
_FLUSH = 5.0  # seconds that an exporter may take for a batch: the end of a process waits for its last one
Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attributes = Mapping[str, "str | int | float | bool"]

_provider: TracerProvider | None = None
_tracer: Tracer | None = None


def wanted() -> bool:
    """Whether the environment says where traces go."""
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    return not off and bool(os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"))


def on() -> bool:
    """Whether this process traces."""
    return _tracer is not None


def start(role: str) -> None:
    """Trace from now on, if that is wanted, as the service ``finsight-ROLE``; OTEL_SERVICE_NAME names it otherwise.

    :raises ParamsError: when a variable of OpenTelemetry has a value that can't be.
    """
    global _provider, _tracer
    if _tracer or not wanted():
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    ours = Resource({"service.name": f"finsight-{role}", "service.version": version("finsight"), "process.pid": os.getpid()})
    # Not the global provider: libraries that trace by themselves (transformers, MLflow) would join in.
    given = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT") or os.environ.get("OTEL_EXPORTER_OTLP_TIMEOUT")
    try:
        _provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()))
        _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=None if given else _FLUSH)))
    except (ValueError, OSError) as error:  # a number that is none, a certificate that is not there
        raise ParamsError(f"OTEL_…: {redaction.scrubbed(str(error))}; mend that variable, or unset OTEL_EXPORTER_OTLP_ENDPOINT") from None
    _tracer = _provider.get_tracer("finsight")


def stop() -> None:
    """Send what has not been sent, and trace no more; a collector that does not answer is waited for once, whatever is left."""
    global _provider, _tracer
    if _provider:
        ending = threading.Thread(target=_provider.shutdown, daemon=True)
        ending.start()
        ending.join(_FLUSH + 1)
    _provider = _tracer = None


@contextmanager
def running(role: str) -> Iterator[None]:
    """Trace while the block runs, if that is wanted; see :func:`start`."""
    start(role)
    try:
        yield
    finally:
        stop()


def spared() -> bool:
    """Whether a frequent thing goes untraced: all but a share of them do, where OTEL_TRACES_SAMPLER does not decide it."""
    return not os.environ.get("OTEL_TRACES_SAMPLER") and random.random() >= SHARE  # noqa: S311  (no secret)


@contextmanager
def span(
    name: str, kind: Kind = "internal", attributes: Attributes | None = None, origin: Mapping[str, str] | None = None
) -> Iterator[Any]:
    """A span around the block, below the present one; None where nothing is traced. What the block raises is recorded.

    :param origin: what :func:`origin` said elsewhere, or the headers of a request: the span goes on with that trace.
    """
    if _tracer is None:
        yield None
        return
    made = begun(name, kind, attributes, origin)
    from opentelemetry.trace import use_span

    with use_span(made, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield made
        except Exception as error:
            failed(error)
            raise


def begun(
    name: str, kind: Kind = "internal", attributes: Attributes | None = None, origin: Mapping[str, str] | None = None, context: Any = None
) -> Any:
    """A span that whoever asks for it ends; None where nothing is traced. See :func:`span`.

    :param context: of OpenTelemetry, where the present one is not the right one.
    """
    if _tracer is None:
        return None
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if origin is not None:
        context = TraceContextTextMapPropagator().extract(origin)
    known = {"finsight.correlation_id": CORRELATION.get()} if CORRELATION.get() else {}
    return _tracer.start_span(name, context, SpanKind[kind.upper()], {**known, **(attributes or {})})


def failed(error: BaseException) -> None:
    """Record an error on the present span, with the correlation id; on one of its own where what failed is not traced."""
    if _tracer is None:
        return
    from opentelemetry.trace import get_current_span

    current = get_current_span()
    if current.is_recording():
        _record(current, error)
        return
    alone = begun("error", origin={})
    _record(alone, error)
    alone.end()


def _record(at: Span, error: BaseException) -> None:
    from opentelemetry.trace import Status, StatusCode

    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    about = {"exception.type": name, "exception.message": redaction.words(error), "exception.stacktrace": redaction.frames(error)}
    at.add_event("exception", {**about, "finsight.correlation_id": CORRELATION.get()})
    at.set_status(Status(StatusCode.ERROR, redaction.words(error)))


def ids() -> dict[str, str]:
    """``trace_id`` and ``span_id`` of the present span, for logs; nothing where there is none."""
    if _tracer is None:
        return {}
    from opentelemetry.trace import format_span_id, format_trace_id, get_current_span

    now = get_current_span().get_span_context()
    return {"trace_id": format_trace_id(now.trace_id), "span_id": format_span_id(now.span_id)} if now.is_valid else {}


def origin() -> dict[str, str]:
    """What somebody else needs to go on with what is being done here: the correlation id and the trace context."""
    found = {_CORRELATION: CORRELATION.get()} if CORRELATION.get() else {}
    if _tracer is not None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        TraceContextTextMapPropagator().inject(found)
    return found


def environment() -> dict[str, str]:
    """The same as variables of a process that is started here."""
    now = origin()
    return {variable: now[name] for variable, name in ((VARIABLE, _CORRELATION), ("TRACEPARENT", _PARENT)) if name in now}


@contextmanager
def continued(origin: Mapping[str, str], name: str, kind: Kind, attributes: Attributes | None = None) -> Iterator[Any]:
    """A span that goes on with what another process began, under its correlation id."""
    before = CORRELATION.set(origin.get(_CORRELATION, ""))
    try:
        with span(name, kind, attributes, origin) as made:
            yield made
    finally:
        CORRELATION.reset(before)


@contextmanager
def process(role: str, name: str) -> Iterator[None]:
    """A process that does one thing, in the trace of whoever started it; what it starts itself goes on with it."""
    if not wanted() or on():
        yield
        return
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # a collector that is away is for the service to tell
    start(role)
    given = {_CORRELATION: os.environ.get(VARIABLE, ""), _PARENT: os.environ.get("TRACEPARENT", "")}
    try:
        with continued({key: value for key, value in given.items() if value}, name, "internal"):
            os.environ.update(environment())
            yield
    finally:
        stop()
