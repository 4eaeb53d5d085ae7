"""Things of a tenant's over HTTP: who reaches them, and that what is hidden looks like what is not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Request

from apps import app_with, rules, served
from finsight.domain.access import Principal
from finsight.domain.policy import Resource, Share
from finsight.service.access import may
from finsight.service.permission import nothing, permit, permitted
from finsight.service.policy_file import PolicyFile
from memory_audit import MemoryAuditLog

SHARED = Share(frozenset({"jobs.*"}), frozenset({"zoe"}), frozenset({"partner"}))
THINGS = {
    "ours": Resource("job", "ours", "acme", "ann"),
    "bobs": Resource("job", "bobs", "acme", "bob"),
    "theirs": Resource("job", "theirs", "other", "ann"),
    "shared": Resource("job", "shared", "other", "eve", shares=(SHARED,)),
    "common": Resource("job", "common"),
}
router = APIRouter(prefix="/things")


@router.get("")
def things(request: Request, principal: Annotated[Principal, may("jobs.read")]) -> list[str]:
    return [name for name, thing in THINGS.items() if permitted(request, principal, "jobs.read", thing)]


@router.get("/{name}")
def thing(name: str, request: Request, principal: Annotated[Principal, may("jobs.read")]) -> str:
    return found(name, request, principal, "jobs.read")


@router.delete("/{name}")
def cancel(name: str, request: Request, principal: Annotated[Principal, may("jobs.cancel")]) -> str:
    return found(name, request, principal, "jobs.cancel")


def found(name: str, request: Request, principal: Principal, action: str) -> str:
    if name not in THINGS:
        raise nothing("job", name)
    permit(request, principal, action, THINGS[name])
    return name


@pytest.fixture(scope="module")
def log() -> MemoryAuditLog:
    return MemoryAuditLog()


@pytest.fixture(scope="module")
def client(log: MemoryAuditLog) -> Iterator[httpx.Client]:
    app = app_with(held_to=rules("*=10000/second", audit=log))
    app.include_router(router)
    with served(app) as opened:
        yield opened


@pytest.mark.parametrize(
    ("who", "sees"),
    [
        ("ann:acme:viewer", ["ours", "bobs", "common"]),
        ("ann:acme:admin", ["ours", "bobs", "common"]),
        ("ann:other:viewer", ["theirs", "shared", "common"]),
        ("ann:partner:viewer", ["shared", "common"]),
        ("zoe:acme:viewer", ["ours", "bobs", "shared", "common"]),
    ],
)
def test_a_list_and_its_things_agree(client: httpx.Client, who: str, sees: list[str]) -> None:
    key = {"X-API-Key": who}
    assert client.get("/things", headers=key).json() == sees
    for name in THINGS:
        assert client.get(f"/things/{name}", headers=key).status_code == (200 if name in sees else 404)


@pytest.mark.parametrize(
    ("who", "may_cancel", "refused"),
    [
        ("ann:acme:viewer", [], ["ours", "bobs", "theirs", "shared", "common"]),  # at the door, whatever the thing
        ("ann:acme:scorer", ["ours"], ["bobs", "common"]),
        ("ann:acme:trainer", ["ours", "bobs", "common"], []),
        ("ann:partner:scorer", ["shared"], ["common"]),
        ("ann:partner:viewer", [], ["ours", "bobs", "theirs", "shared", "common"]),
        ("zoe:acme:scorer", ["shared"], ["ours", "bobs", "common"]),
    ],
)
def test_what_may_be_cancelled(client: httpx.Client, who: str, may_cancel: list[str], refused: list[str]) -> None:
    for name in THINGS:
        status = client.delete(f"/things/{name}", headers={"X-API-Key": who}).status_code
        assert status == (200 if name in may_cancel else 403 if name in refused else 404), name


def test_what_is_hidden_looks_like_what_is_not_there_and_is_recorded(client: httpx.Client, log: MemoryAuditLog) -> None:
    key = {"X-API-Key": "tim:acme:admin"}
    before = len(log.kept)
    hidden, none = client.get("/things/theirs", headers=key), client.get("/things/nowhere", headers=key)
    assert hidden.status_code == none.status_code == 404
    assert hidden.json()["detail"].replace("theirs", "") == none.json()["detail"].replace("nowhere", "")
    assert hidden.json().keys() == none.json().keys()
    assert hidden.headers.keys() == none.headers.keys()
    (record,) = log.entries[before:]
    assert (record.who, record.action, record.resource, record.outcome, record.status) == (
        "tim",
        "jobs.read",
        "/things/theirs",
        "refused",
        404,
    )


@pytest.mark.parametrize(("model", "may_promote", "may_read"), [("sandbox", True, True), ("finsight", False, False)])
def test_conditions_on_models_are_asked_at_the_door(tmp_path: Path, model: str, may_promote: bool, may_read: bool) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(
        "roles:\n  viewer: {allow: [models.read]}\n"
        "grants: [{roles: [viewer], actions: [models.promote], when: {models: [sandbox]}}]\n"
        "refusals: [{actions: [models.read], because: closed, when: {models: [finsight]}}]\n"
    )
    app = app_with(held_to=rules(policy=PolicyFile(file), model=lambda: model))
    app.add_api_route("/promote-it", lambda: "done", methods=["POST"], dependencies=[may("models.promote")])
    app.add_api_route("/read-it", lambda: "read", dependencies=[may("models.read")])
    with served(app) as opened:
        key = {"X-API-Key": "ann:acme:viewer"}
        assert (opened.post("/promote-it", headers=key).status_code == 200) == may_promote
        assert (opened.get("/read-it", headers=key).status_code == 200) == may_read
