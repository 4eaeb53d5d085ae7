"""The page for people, in a real Chromium without JavaScript, and what it refuses to other sites."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from playwright.sync_api import Browser, Page

from browsers import CHECK
from conftest import Project
from finsight.domain.access import Principal
from finsight.domain.jobs import Job, Kind, Order, State
from finsight.service import jobs, rendering
from finsight.service.rendering import html
from finsight.service_ports import Session
from released import KEY

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]
HEADLINE = "Operating profit rose to EUR 13.1 mn, but sales <b>fell</b>."


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, browser: Browser, service: httpx.Client) -> Iterator[Page]:
    context = browser.new_context(
        base_url=str(service.base_url), java_script_enabled=False, color_scheme=request.param, viewport={"width": 1100, "height": 900}
    )
    context.set_default_timeout(120_000)  # a comparison takes its time on a busy machine
    opened = context.new_page()
    opened.goto("/")
    yield opened
    context.close()


def sign_in(page: Page) -> None:
    page.get_by_label("Key of this service").fill(KEY)
    page.get_by_role("button", name="Sign in").press("Enter")


def test_a_headline_is_labelled_and_explained(page: Page) -> None:
    sign_in(page)
    page.get_by_label("A headline, or a few sentences").fill(HEADLINE)
    page.get_by_role("button", name="Label it").press("Enter")
    result = page.get_by_role("status").first
    assert result.get_by_role("heading").first.inner_text() in ("Negative", "Neutral", "Positive")
    probabilities = [float(meter.get_attribute("value") or "x") for meter in result.locator("meter").all()]
    assert sum(probabilities) == pytest.approx(1, abs=1e-3)
    words = [re.sub(r"\s*[+-]\d\.\d\d$", "", word) for word in result.locator(".w").all_inner_texts()]
    assert words == HEADLINE.split()
    assert page.get_by_label("A headline, or a few sentences").input_value() == HEADLINE
    assert page.evaluate(CHECK) == []


def test_the_page_holds_up_on_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate(CHECK) == []
    sign_in(page)
    assert page.get_by_role("table").first.is_visible()
    assert page.evaluate(CHECK) == []


def test_the_keyboard_reaches_everything_in_reading_order(page: Page) -> None:
    sign_in(page)
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        name = page.evaluate("() => document.activeElement.id || document.activeElement.textContent.trim() || document.activeElement.name")
        if name in reached:
            break
        reached.append(name)
    wanted = [
        "Skip to the content",
        "Sign out",
        "text",
        "Label it",
        "Refresh",
        "kind",
        "parameters",
        "Start",
        "Report of version 2",
        "version",
        "why",
        "force",
        "Promote",
        "back",
        "Roll back",
    ]
    assert [name for name in reached if name in wanted] == wanted


def test_the_champion_is_moved_and_moved_back(page: Page, released: Project) -> None:
    sign_in(page)
    try:
        page.get_by_label("Version", exact=True).select_option("2")
        page.get_by_label("Reason, for the audit log").first.fill("a drill on the page")
        page.get_by_role("button", name="Promote").click()
        assert page.get_by_role("status").first.inner_text() == "The champion was changed."
        assert "champion" in page.get_by_role("row", name=re.compile("^2 ")).inner_text()
    finally:
        page.get_by_role("button", name="Roll back").click()
    assert page.get_by_role("status").first.inner_text() == "The champion is the one before."
    assert "champion" in page.get_by_role("row", name=re.compile("^1 ")).inner_text()
    log = httpx.get(page.url.partition("?")[0] + "v1/models/2", headers={"X-API-Key": KEY}).json()["log"]
    assert log[-2]["who"] == "admin"
    assert log[-2]["why"].startswith("a drill on the page; ")


def test_what_is_refused_is_said(page: Page) -> None:
    sign_in(page)
    page.get_by_label("Even where a gate fails (needs a reason)").check()
    page.get_by_role("button", name="Promote").click()
    assert page.get_by_role("alert").inner_text() == "force needs why: the audit log keeps the reason"
    page.get_by_role("link", name="Report of version 2").click()
    assert page.get_by_role("heading", level=1).inner_text() == "finsight"


def test_nothing_comes_from_elsewhere_and_no_style_is_refused(page: Page) -> None:
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.reload()
    assert asked == [page.url]
    assert not [text for text in complaints if "Content Security Policy" in text]


def test_a_wrong_key_opens_nothing_and_signing_out_closes(page: Page) -> None:
    page.get_by_label("Key of this service").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    assert page.get_by_role("alert").inner_text() == "This is no key of this service."
    assert page.context.cookies() == []
    sign_in(page)
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
    page.get_by_role("button", name="Sign out").click()
    assert page.get_by_role("status").inner_text() == "You are signed out."
    page.context.add_cookies([cookie])
    page.goto("/")
    assert page.get_by_label("Key of this service").is_visible()


@pytest.fixture
def signed_in(service: httpx.Client) -> Iterator[tuple[httpx.Client, str]]:
    """A client with a session, and the session's CSRF token."""
    with httpx.Client(base_url=service.base_url, timeout=60, follow_redirects=True) as client:
        found = re.search(r'name="csrf" value="([^"]+)"', client.post("/session", data={"key": KEY}).text)
        assert found is not None
        yield client, found[1]


CANCEL = f"/jobs/{'0' * 32}/cancel"
FORMS = [("/", {"text": "x"}), ("/jobs", {"kind": "train"}), (CANCEL, {}), ("/promote", {"version": "2"}), ("/rollback", {})]
FORMS.append(("/session/end", {}))


@pytest.mark.parametrize(("path", "form"), FORMS)
def test_a_form_of_another_site_is_refused(signed_in: tuple[httpx.Client, str], path: str, form: dict[str, str]) -> None:
    client, token = signed_in
    assert client.post(path, data=form).status_code == 422
    assert client.post(path, data=form | {"csrf": token[:-1] + "é"}).status_code == 403
    for origin in ("https://elsewhere.example", "null"):
        assert client.post(path, data=form | {"csrf": token}, headers={"Origin": origin}).status_code == 403
    assert 'name="csrf"' in client.get("/").text
    assert httpx.post(client.base_url.join(path), data=form | {"csrf": token}).status_code == 401


def test_the_session_is_good_for_the_page_alone(signed_in: tuple[httpx.Client, str]) -> None:
    client, _ = signed_in
    assert client.get("/v1/models").status_code == 401
    assert client.get("/models/2/report").text.startswith("<!doctype html>")
    assert "sandbox" in client.get("/models/2/report").headers["Content-Security-Policy"]
    client.cookies.clear()
    assert 'id="key"' in client.get("/models/2/report").text


def test_half_a_character_that_was_typed_is_no_error_of_ours() -> None:
    """A form whose charset is unicode_escape can have one; what is refused is said with it."""
    assert b"? comes twice" in bytes(
        html("job_list.html", jobs={"away": "\ud800 comes twice", "cursor": "", "older": "", "passing": False}).body
    )


@pytest.mark.parametrize(("aliases", "offered"), [([["champion"]], 0), ([[]], 1), ([["champion"], []], 1)])
def test_a_champion_is_not_offered_for_promotion_where_there_is_no_other(aliases: list[list[str]], offered: int) -> None:
    shown = [SimpleNamespace(version=n, aliases=of, metrics={}, created="2026-11-27", signature="") for n, of in enumerate(aliases, 1)]
    session = Session(Principal("ann", "acme", frozenset()), "token")
    text = bytes(html("models.html", models=shown, unreachable="", may=lambda _: True, session=session).body).decode()
    assert (text.count('action="/promote"'), text.count('action="/rollback"')) == (offered, 1)


def test_a_row_of_jobs_is_no_higher_on_a_phone_than_its_few_words(browser: Browser) -> None:
    created = datetime(2026, 11, 27, tzinfo=UTC)
    job = jobs.shown(Job("a" * 32, Order(Kind.TRAIN, {}, "acme", "key:0199f0c2a4d27c1e5b9a3f60"), State.QUEUED, 0, created.timestamp()))
    listed = {"cursor": "", "rows": [{"job": job, "metrics": {}}], "older": "", "away": "", "running": 0, "queued": 1}
    style = (Path(rendering.__file__).parent / "templates/style.css").read_text()
    page = browser.new_page(viewport={"width": 320, "height": 640})
    page.set_content(f"<style>{style}</style>{bytes(html('job_list.html', jobs=listed).body).decode()}")
    box = page.get_by_role("row").nth(1).bounding_box()
    assert box
    assert box["height"] < 120
    page.close()


def test_the_templates_are_in_the_package() -> None:
    import finsight.service

    names = {path.name for path in (Path(finsight.service.__file__).parent / "templates").iterdir()}
    pieces = {"layout", "token", "page", "headline", "jobs", "job_list", "job", "job_now", "models", "signed_in"}
    assert names == {*(f"{piece}.html" for piece in pieces), "style.css"}
    assert (Path(finsight.service.__file__).parent / "static/live.js").is_file()
