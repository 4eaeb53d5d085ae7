"""What was done and refused, over REST."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from finsight.domain.access import Principal
from finsight.domain.audit import Entry
from finsight.domain.keys import LOCAL
from finsight.service.access import may
from finsight.service.rules import Rules

_PAGE, _PAGES = 200, 10  # records that are looked through at once, and how often for one answer
router = APIRouter(tags=["audit"])


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord(Entry):
    """What happened, and its place in the chain: see docs/service-policy.md."""

    __pydantic_config__ = ConfigDict(
        json_schema_extra={
            "example": {
                "number": 17,
                "when": "2026-11-28T09:30:00.123456+00:00",
                "who": "key:0199f0c2a4d27c1e5b9a3f60",
                "tenant": "local",
                "action": "models.promote",
                "resource": "/v1/models/3/promote",
                "outcome": "done",
                "status": 200,
                "correlation_id": "5f0c0c9ce1d64f4f",
                "address": "192.0.2.7",
                "repeats": 0,
                "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            }
        }
    )

    number: int
    digest: str


class AuditPage(BaseModel):
    """Records, newest first. ``next`` is the cursor of the older ones; null where there are none."""

    model_config = ConfigDict(json_schema_extra={"example": {"records": [], "next": "17"}})

    records: list[AuditRecord]
    next: str | None = Field(examples=["17"])


@router.get("/audit")
def show_audit(
    request: Request,
    principal: Annotated[Principal, may("audit.read")],
    cursor: Annotated[str | None, Query(pattern=r"^[0-9]{1,15}$", description="`next` of the page before.", examples=["17"])] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="How many records a page has at most.", examples=[50])] = 50,
) -> AuditPage:
    """Show the audit log of one's tenant; for tenant `local`, whose service it is, also what strangers were refused."""
    rules: Rules = request.app.state.parts.rules
    tenants = {principal.tenant} | ({""} if principal.tenant == LOCAL else set())
    found: list[AuditRecord] = []
    before = int(cursor) if cursor else None
    for _ in range(_PAGES):
        page = rules.audit.latest(before, _PAGE)
        for record in page:
            before = record.number
            if record.entry and record.entry.tenant in tenants:
                found.append(AuditRecord(**asdict(record.entry), number=record.number, digest=record.digest))
                if len(found) == limit:
                    return AuditPage(records=found, next=str(before) if before > 1 else None)
        if len(page) < _PAGE:
            return AuditPage(records=found, next=None)
    return AuditPage(records=found, next=str(before))
