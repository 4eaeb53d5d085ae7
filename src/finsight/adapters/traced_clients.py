"""Spans for what is asked of outside systems: MLflow's client by its methods, boto3's by the events of S3's operations."""

from __future__ import annotations

import functools
from typing import Any

from finsight import tracing


class Traced:
    """A client whose every call is a span.

    :param system: its name in the service graph.
    :param address: a host.
    """

    def __init__(self, client: Any, system: str, address: str) -> None:
        self._client, self._system = client, system
        self._about = {"peer.service": system, "server.address": address}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found):
            return found

        @functools.wraps(found)
        def called(*args: Any, **kwargs: Any) -> Any:
            with tracing.span(f"{self._system} {name}", "client", self._about):
                return found(*args, **kwargs)

        return called


def trace_s3(client: Any) -> None:
    """Have each operation of an S3 client be a span, with its retries, below the span of now: uploads make theirs in threads."""
    from opentelemetry.context import get_current

    place, host = get_current(), client.meta.endpoint_url.partition("://")[2]

    def before(model: Any, context: dict[str, Any], **_: Any) -> None:
        about = {"peer.service": "s3", "server.address": host, "rpc.system": "aws-api", "rpc.method": model.name}
        context["finsight.span"] = tracing.begun(f"s3 {model.name}", "client", about, context=place)

    def after(context: dict[str, Any], parsed: Any = None, exception: BaseException | None = None, **_: Any) -> None:
        span = context.pop("finsight.span", None)
        if span is None:
            return
        status = (parsed or {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        span.set_attribute("http.response.status_code", status)
        if exception or status >= 500:
            span.set_attribute("error.type", type(exception).__name__ if exception else str(status))
        span.end()

    client.meta.events.register("before-call.s3", before)
    client.meta.events.register("after-call.s3", after)
    client.meta.events.register("after-call-error.s3", after)
