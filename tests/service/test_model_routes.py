"""The registry over HTTP: a real one, with two versions."""

from collections.abc import Iterator

import httpx
import pytest

from conftest import Project
from finsight.adapters.mlflow_registry import MlflowRegistry

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")


def held(project: Project) -> dict[str, int]:
    versions = MlflowRegistry(project.env["MLFLOW_TRACKING_URI"], "finsight").versions()
    return {alias: v.number for v in versions for alias in v.aliases}


@pytest.fixture
def strict(released: Project) -> Iterator[Project]:
    """The project with gates that the challenger does not pass."""
    released.set(gates__primary="better")
    yield released
    released.set(gates__primary="not worse")


def test_versions_come_newest_first_and_page_by_page(service: httpx.Client, released: Project) -> None:
    whole = service.get("/v1/models").json()
    assert [one["version"] for one in whole["items"]] == [2, 1]
    assert whole["next"] is None
    first = service.get("/v1/models", params={"limit": 1}).json()
    second = service.get("/v1/models", params={"limit": 1, "cursor": first["next"]}).json()
    assert first["items"] + second["items"] == whole["items"]
    assert second["next"] is None
    newest = whole["items"][0]
    assert newest["aliases"] == ["challenger"]
    assert (newest["commercial_use"], newest["forbidden_by"], newest["signature"]) == (True, None, "development")
    assert newest["metrics"].keys() == {"accuracy", "macro_f1"}
    assert newest["metrics"] == {key: pytest.approx(value, abs=1e-4) for key, value in report(service, 2).items()}


def report(service: httpx.Client, version: int) -> dict[str, float]:
    content = service.get(f"/v1/models/{version}/report", headers={"Accept": "application/json"}).json()
    return {key: content[key] for key in ("accuracy", "macro_f1")}


@pytest.mark.parametrize("cursor", ["", "x", "WzFd!", "bnVsbA", "WyJ4Il0", "W1tdXQ", "e30", "\ud7ff", "W" * 400])
def test_what_is_no_cursor_of_the_list_is_refused(service: httpx.Client, cursor: str) -> None:
    answer = service.get("/v1/models", params={"cursor": cursor})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("cursor: expected")


def test_a_version_is_shown_by_its_number_and_by_its_alias(service: httpx.Client) -> None:
    shown = service.get("/v1/models/champion").json()
    assert shown == service.get("/v1/models/1").json()
    assert shown["log"][0]["action"] == "register"
    assert (shown["log"][0]["from"], shown["log"][0]["to"]) == ("", "1")


@pytest.mark.parametrize("route", ["/v1/models/{}", "/v1/models/{}/report", "/v1/models/{}/card", "/v1/lineage/{}"])
@pytest.mark.parametrize(
    ("name", "status"),
    [("99", 404), ("nobody", 404), ("-1", 422), ("0", 422), ("--help", 422), ("a b", 422), ("HEAD~1", 422), ("%2e%2e%2fx", 404)],
)
def test_a_name_that_is_none_never_gets_further(service: httpx.Client, route: str, name: str, status: int) -> None:
    answer = service.get(route.format(name))
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_report_is_a_page_in_which_nothing_runs(service: httpx.Client) -> None:
    page = service.get("/v1/models/challenger/report", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.text.startswith("<!doctype html>")
    policy = page.headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "sandbox", "form-action 'none'", "frame-ancestors 'none'"} <= set(policy)
    assert "script-src" not in page.headers["Content-Security-Policy"]
    assert service.get("/v1/models/2/report").text == page.text


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/json", "application/json"),
        ("application/json, text/html;q=0.5", "application/json"),
        ("application/json;q=0.4, text/html;q=0.5", "text/html"),
        ("text/html, application/json", "text/html"),
        ("*/*", "text/html"),
        ("", "text/html"),
        ("application/json;q=x", "text/html"),
    ],
)
def test_the_report_comes_as_what_is_preferred(service: httpx.Client, accept: str, kind: str) -> None:
    answer = service.get("/v1/models/2/report", headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] == kind
    assert answer.headers["Vary"] == "Accept"


def test_the_card_is_what_the_pipeline_wrote(service: httpx.Client, released: Project) -> None:
    card = service.get("/v1/models/champion/card")
    assert card.headers["content-type"] == "text/markdown; charset=utf-8"
    assert card.content == (released.root / "reports/model_card.md").read_bytes()


def test_a_gate_refuses_and_a_reason_forces(service: httpx.Client, strict: Project) -> None:
    try:
        refused = service.post("/v1/models/challenger/promote", json={"alias": "champion"})
        assert refused.status_code == 409
        problem = refused.json()
        assert problem["type"] == "urn:finsight:problem:gates"
        (failure,) = problem["failures"]
        assert failure.startswith("gates.primary: macro_f1 has to be better")
        assert failure in problem["detail"]
        assert "--force" not in problem["detail"]
        assert held(strict) == {"champion": 1, "challenger": 2}
        moved = service.post("/v1/models/2/promote", json={"force": True, "why": "a drill"}).json()
        assert (moved["alias"], moved["version"], moved["before"]) == ("champion", 2, 1)
        assert held(strict) == {"champion": 2, "challenger": 2}
    finally:
        back = service.post("/v1/models/rollback", json={"why": "the drill is over"})
    assert (back.json()["version"], back.json()["before"]) == (1, 2)
    assert held(strict) == {"champion": 1, "challenger": 2}
    promoted, rolled_back = service.get("/v1/models/2").json()["log"][-2:]
    assert (promoted["who"], promoted["action"]) == ("admin", "promote")
    assert promoted["why"].startswith("a drill; forced over gates.primary")
    assert (rolled_back["who"], rolled_back["action"], rolled_back["why"]) == ("admin", "rollback", "the drill is over")


@pytest.mark.parametrize(
    "body",
    [
        {"force": True},
        {"force": True, "why": "  "},
        {"alias": "latest"},
        {"alias": "v2"},
        {"alias": "--all"},
        {"alias": "a/b"},
        {"why": "one\nanother"},
        {"why": "x" * 1001},
        {"who": "somebody else"},
    ],
)
def test_what_is_no_promotion_changes_nothing(service: httpx.Client, released: Project, body: dict[str, object]) -> None:
    before = service.get("/v1/models/2").json()["log"]
    answer = service.post("/v1/models/2/promote", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("body")
    assert service.get("/v1/models/2").json()["log"] == before


def test_there_is_nothing_to_roll_back_to(service: httpx.Client) -> None:
    answer = service.post("/v1/models/rollback", json={"alias": "canary"})
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:finsight:problem:no-version-before"


def test_an_archived_version_is_not_listed_and_not_promoted(service: httpx.Client, released: Project) -> None:
    registry = MlflowRegistry(released.env["MLFLOW_TRACKING_URI"], "finsight")
    registry.tag(2, {"archived": "2026-11-20"})
    try:
        assert [one["version"] for one in service.get("/v1/models").json()["items"]] == [1]
        assert [one["version"] for one in service.get("/v1/models?archived_too=true").json()["items"]] == [2, 1]
        answer = service.post("/v1/models/2/promote", json={"force": True, "why": "a drill"})
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:finsight:problem:archived")
    finally:
        registry.tag(2, {"archived": "no"})
