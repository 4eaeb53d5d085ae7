"""What the service counts, shown to Prometheus."""

from __future__ import annotations

import ipaddress
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from finsight.service.access import admitted
from finsight.service.parts import Parts
from finsight.service.problems import ProblemDocument

router = APIRouter(tags=["health"])
ACTION = "metrics.read"
# To those who come from elsewhere.
_REFUSALS: dict[int | str, dict[str, Any]] = {status: {"model": ProblemDocument} for status in (400, 401, 403, 429, 503)}
# How names of headers begin that a proxy writes: beside one, which may be a service mesh's in the same pod, everybody comes from loopback.
_PROXIED = ("forwarded", "x-forwarded-", "x-envoy-", "x-real-ip", "via")


def may_or_local(action: str) -> Any:
    """The dependency of a route that is open to this host, and elsewhere an ``action``."""

    def checked(request: Request) -> None:
        if not local(request):
            admitted(request, action)

    checked.action = action  # type: ignore[attr-defined]
    return Depends(checked)


def local(request: Request) -> bool:
    """Whether a request comes from this host, and through no proxy."""
    try:
        host = ipaddress.ip_address(request.client.host if request.client else "")
    except ValueError:
        return False
    return host.is_loopback and not any(name.startswith(_PROXIED) for name in request.headers)


@router.get("/metrics", dependencies=[may_or_local(ACTION)], response_class=Response, responses=_REFUSALS)
def metrics(request: Request) -> Response:
    """Counters in the text format of Prometheus; open to this host, elsewhere to those who may ``metrics.read``."""
    parts: Parts = request.app.state.parts
    return Response(generate_latest(parts.meters.registry), media_type=CONTENT_TYPE_LATEST)
