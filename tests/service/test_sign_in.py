"""Signing in at an issuer: a real one, a real Redis, and each way in which it must not work."""

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.sync_api import Browser
from pydantic import SecretStr
from redis import Redis

from browsers import CHECK
from finsight.adapters.job_process import plain_environment
from finsight.adapters.oidc import LARGEST, LEEWAY
from finsight.bootstrap.released import versions
from finsight.bootstrap.sign_in import CALLBACK, public_url, sign_in
from finsight.domain.sign_in import Attempt
from finsight.errors import ParamsError
from finsight.service.backstage import kept_up
from finsight.service.sessions import COOKIE
from finsight.service.sign_in import COOKIE as ATTEMPT
from finsight.service.sign_in import SECONDS
from finsight.settings import Settings
from issuers import CLIENT, Issuer, jwk_of
from live import ADMIN_KEY, Live, live
from servers import free_port

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")  # MLflow's


@pytest.fixture(scope="module", autouse=True)
def _empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db")
        versions()  # which makes the database: that takes longer than a client waits
        yield


@pytest.fixture
def service(issuer: Issuer, redis_url: str) -> Iterator[Live]:
    """A service whose page signs in at the issuer; it keeps no cookies between tests."""
    port = free_port()
    own = f"http://127.0.0.1:{port}"
    issuer.redirect = own + CALLBACK
    with live(redis_url, port, oidc_issuer=issuer.url, oidc_client_id=CLIENT, public_url=own) as found:
        yield found


def begun(service: Live, **headers: str) -> dict[str, str]:
    """What the browser is told to ask the issuer for."""
    answer = service.http.get("/session/oidc", headers=headers)
    assert answer.status_code == 303, answer.text
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["Location"]).query).items()}


def back(service: Live, **query: str) -> httpx.Response:
    return service.http.get(CALLBACK, params=query)


def signed_in(service: Live, issuer: Issuer) -> httpx.Response:
    """The whole way, as a browser goes it."""
    return service.http.get(issuer.allowed(begun(service)))


def line(answer: httpx.Response) -> str:
    """The one line on the page that says what is wrong."""
    (found,) = re.findall(r'role="alert">([^<]*)<', answer.text)
    return str(found).replace("&#39;", "'")


def records(service: Live) -> list[tuple[str, str, str, int]]:
    found = service.http.get("/v1/audit", headers={"X-API-Key": ADMIN_KEY}).json()["records"]
    return [(one["who"], one["action"], one["outcome"], one["status"]) for one in found]


def test_who_signs_in_has_a_session_like_that_of_a_key(service: Live, issuer: Issuer, redis_url: str) -> None:
    asked = begun(service)
    assert asked["redirect_uri"] == issuer.redirect
    assert issuer.authorize(asked)[0] == 200
    (attempt,) = service.http.cookies.jar
    assert (attempt.name, attempt.path, attempt.secure) == (ATTEMPT, "/session/oidc", False)
    with Redis.from_url(redis_url, decode_responses=True) as client:
        (key,) = client.keys("finsight:attempt:*")
        kept = json.loads(str(client.get(key)))
        assert str(attempt.value) not in key + str(kept)
        assert kept[0] == asked["state"]
        assert SECONDS - 60 < client.ttl(key) <= SECONDS
        assert Attempt(*kept).challenge == asked["code_challenge"]
    answer = service.http.get(issuer.allowed(asked))
    assert answer.status_code == 200
    assert 'content="0; url=/"' in answer.text
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    cookies = answer.headers.get_list("set-cookie")
    assert [c for c in cookies if c.startswith(COOKIE) and "HttpOnly" in c and "SameSite=strict" in c and "Secure" not in c]
    assert [c for c in cookies if c.startswith(ATTEMPT) and "Max-Age=0" in c and "Path=/session/oidc" in c]
    page = service.http.get("/").text
    assert "Signed in as oidc:ada" in page
    assert "Label it" in page  # a scorer may
    assert "Start a job" not in page


def test_the_attempts_cookie_is_no_scripts_and_comes_back_from_another_site(service: Live) -> None:
    (cookie,) = service.http.get("/session/oidc").headers.get_list("set-cookie")
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert f"Max-Age={SECONDS}" in cookie


def test_signing_in_is_recorded_and_so_is_what_fails(service: Live, issuer: Issuer) -> None:
    issuer.claims = {"tenant": "local"}  # whose admin sees strangers' too
    signed_in(service, issuer)
    begun(service)
    back(service, state="x", code="x")
    assert [one for one in records(service) if one[1] == "session.begin"] == [
        ("", "session.begin", "refused", 403),
        ("oidc:ada", "session.begin", "done", 200),
    ]


def test_a_code_counts_once_and_so_does_a_state(service: Live, issuer: Issuer) -> None:
    asked = begun(service)
    where = issuer.allowed(asked)
    code = parse_qs(urlsplit(where).query)["code"][0]
    assert service.http.get(where).status_code == 200
    service.http.cookies.clear()
    again = service.http.get(where)  # the same link: its state is used up
    assert (again.status_code, line(again).partition(",")[0]) == (403, "no such sign-in is under way in this browser")
    replayed = back(service, code=code, state=begun(service)["state"])  # the same code with a state that is good
    assert (replayed.status_code, line(replayed)) == (
        401,
        "nobody was signed in: the issuer does not take the code (invalid_grant); sign in again",
    )
    assert COOKIE not in service.http.cookies


@pytest.mark.parametrize("state", ["", "another", "é"])
def test_a_wrong_state_ends_the_attempt(service: Live, issuer: Issuer, state: str) -> None:
    asked = begun(service)
    answer = back(service, code="x", state=state)
    assert answer.status_code == 403
    assert "begin again at" in line(answer)
    assert service.http.get(issuer.allowed(asked)).status_code == 403  # which could be guessed at otherwise
    assert COOKIE not in service.http.cookies


def test_a_link_that_another_browser_began_opens_nothing_here(service: Live, issuer: Issuer) -> None:
    where = issuer.allowed(begun(service))
    with httpx.Client(base_url=service.http.base_url) as victim:
        assert victim.get(where).status_code == 403
        victim.get("/session/oidc")  # nor where it has begun one of its own
        assert victim.get(where).status_code == 403
        assert COOKIE not in victim.cookies


def test_a_code_is_worth_nothing_without_the_verifier(service: Live, issuer: Issuer, redis_url: str) -> None:
    asked = begun(service)
    with Redis.from_url(redis_url) as client:
        (key,) = client.keys("finsight:attempt:*")
        kept = json.loads(client.get(key))
        client.set(key, json.dumps([kept[0], kept[1], "another" * 8]))
    assert line(service.http.get(issuer.allowed(asked))).startswith(
        "nobody was signed in: the issuer does not take the code (invalid_grant)"
    )


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ({"nonce": "another"}, "the issuer's ID token is of another sign-in (nonce)"),
        ({"nonce": None}, "the issuer's ID token is of another sign-in (nonce)"),
        ({"exp": int(time.time()) - LEEWAY - 60}, "the issuer's ID token is not good here, or has expired"),
        ({"aud": "another"}, "the issuer's ID token is not good here, or has expired"),
        ({"iss": "https://elsewhere.example"}, "the issuer's ID token is not good here, or has expired"),
        ({"sub": None}, "the issuer's ID token is not good here, or has expired"),
        ({"azp": "another"}, "the issuer's ID token was given to another service (azp)"),
        ({"aud": [CLIENT, "another"]}, "the issuer's ID token was given to another service (azp)"),
        ({"tenant": None}, "the issuer's ID token names nobody, or no tenant, and FINSIGHT_OIDC_TENANT is unset"),
    ],
)
def test_an_id_token_that_is_not_for_this_sign_in_is_refused(service: Live, issuer: Issuer, claims: dict[str, Any], says: str) -> None:
    issuer.claims = claims
    answer = signed_in(service, issuer)
    assert (answer.status_code, line(answer).partition(";")[0]) == (401, f"nobody was signed in: {says}")
    assert COOKIE not in service.http.cookies


def test_one_for_several_counts_where_it_was_given_to_us(service: Live, issuer: Issuer) -> None:
    issuer.claims = {"aud": [CLIENT, "another"], "azp": CLIENT, "roles": []}
    assert signed_in(service, issuer).status_code == 200
    assert "no role of yours opens any of it" in service.http.get("/").text


def test_a_token_of_no_key_of_the_issuers_is_refused(service: Live, issuer: Issuer) -> None:
    issuer.keys = [{**jwk_of("ec"), "kid": "rsa"}]  # its name, of another kind
    assert signed_in(service, issuer).status_code == 401


@pytest.mark.parametrize(
    ("status", "answer", "said", "ours"),
    [
        (400, {"error": "<b>elsewhere</b>"}, "the issuer does not take the code (400)", 401),
        (200, {"access_token": "x"}, "the issuer does not take the code (200)", 401),
        (200, {"id_token": 7}, "the issuer does not take the code (200)", 401),
        (500, {"error": "server_error"}, "no token to be had from it (status 500)", 503),
        (200, {"id_token": "x" * LARGEST}, "no token to be had from it (ValueError)", 503),
    ],
)
def test_a_token_endpoint_that_gives_none(service: Live, issuer: Issuer, status: int, answer: dict[str, Any], said: str, ours: int) -> None:
    asked = begun(service)
    issuer.status, issuer.answer = status, answer
    found = service.http.get(issuer.allowed(asked))
    assert found.status_code == ours
    assert said in line(found)


def test_an_issuer_that_is_away_is_said_to_be(issuer: Issuer, redis_url: str) -> None:
    port, nobody = free_port(), f"http://127.0.0.1:{free_port()}"
    settings = {"oidc_client_id": CLIENT, "public_url": f"http://127.0.0.1:{port}"}
    with live(redis_url, port, oidc_issuer=nobody, **settings) as service:
        answer = service.http.get("/session/oidc")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert line(answer) == f"{nobody}: no keys to be had from it (ConnectError); nobody can sign in there until it answers"
        assert service.http.post("/session", data={"key": ADMIN_KEY}).status_code == 303
    issuer.redirect = settings["public_url"] + CALLBACK
    with live(redis_url, port, oidc_issuer=issuer.url, **settings) as service:
        where = issuer.allowed(begun(service))
        issuer.about["token_endpoint"] = issuer.url  # its discovery document is known, and it breaks down then
        with Redis.from_url(redis_url) as client:
            assert client.keys("finsight:attempt:*")
        issuer.answer, issuer.status = {}, 503
        assert service.http.get(where).status_code == 503


@pytest.mark.parametrize("where", ["http://elsewhere.example/authorize", "https://127.0.0.1/x", "file:///etc/passwd", None, "http://["])
@pytest.mark.parametrize("endpoint", ["authorization_endpoint", "token_endpoint"])
def test_endpoints_of_another_origin_get_nothing(service: Live, issuer: Issuer, endpoint: str, where: str | None) -> None:
    issuer.about[endpoint] = where
    answer = service.http.get("/session/oidc")
    if endpoint == "token_endpoint":
        assert answer.status_code == 303
        answer = service.http.get(issuer.allowed({name: v[0] for name, v in parse_qs(urlsplit(answer.headers["Location"]).query).items()}))
    assert answer.status_code == 503
    assert line(answer) == f"{issuer.url}: its discovery document has no {endpoint} at its own address; sign in with a key"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("access_denied", "you or the issuer refused"),
        ("temporarily_unavailable", "the issuer has too much to do; try again later"),
        ("<b>call 555-1234</b>", "the issuer sent no code"),
        ("", "the issuer sent no code"),
    ],
)
def test_what_the_issuer_refuses_is_said_in_our_words(service: Live, error: str, says: str) -> None:
    answer = back(service, state=begun(service)["state"], error=error)
    assert (answer.status_code, line(answer)) == (401, f"nobody was signed in: {says}")
    assert "555" not in answer.text


def test_nobody_can_plant_a_session(service: Live, issuer: Issuer) -> None:
    """Session fixation: what the browser had before is over, also where it was somebody's session."""
    service.http.post("/session", data={"key": ADMIN_KEY})
    planted = service.http.cookies[COOKIE]
    assert signed_in(service, issuer).status_code == 200
    assert service.http.cookies[COOKIE] != planted
    assert "Sign in" in httpx.get(service.http.base_url, cookies={COOKIE: planted}).text
    mine = service.http.cookies[COOKIE]
    service.http.post("/session", data={"key": ADMIN_KEY})  # with a key it is the same
    assert service.http.cookies[COOKIE] != mine
    assert "Sign in" in httpx.get(service.http.base_url, cookies={COOKIE: mine}).text
    service.http.cookies.set(COOKIE, "chosen-by-an-attacker", domain="127.0.0.1")
    answer = service.http.post("/session", data={"key": ADMIN_KEY})
    assert "chosen-by-an-attacker" not in answer.headers["set-cookie"]


def test_no_request_says_where_it_goes(service: Live, issuer: Issuer) -> None:
    """Open redirects: the way goes to the issuer of the settings, back to the address of the settings, and then to the page."""
    for query in ("next=https://evil.example", "redirect_uri=https://evil.example", "state=x", "return_to=//evil.example"):
        answer = service.http.get(f"/session/oidc?{query}", headers={"Host": "evil.example", "X-Forwarded-Host": "evil.example"})
        assert answer.headers["Location"].startswith(f"{issuer.url}/authorize?realm=x&")
        assert "evil" not in answer.headers["Location"]
    asked = begun(service, Host="evil.example")
    done = service.http.get(issuer.allowed(asked) + "&next=https://evil.example&redirect=//evil.example")
    assert done.status_code == 200
    assert "evil" not in done.text
    assert "Location" not in done.headers


def test_a_client_with_a_secret_shows_it_in_the_way_that_the_issuer_takes(issuer: Issuer, redis_url: str, caplog: Any) -> None:
    port = free_port()
    own = f"http://127.0.0.1:{port}"
    issuer.redirect, issuer.secret = own + CALLBACK, "s3cret"
    settings = {"oidc_issuer": issuer.url, "oidc_client_id": CLIENT, "public_url": own}
    with live(redis_url, port, oidc_client_secret=SecretStr("s3cret"), **settings) as service:
        assert signed_in(service, issuer).status_code == 200
    with live(redis_url, port, oidc_client_secret=SecretStr("wrong-s3cret"), **settings) as service:
        answer = signed_in(service, issuer)
        assert line(answer) == "nobody was signed in: the issuer does not take the code (invalid_client); sign in again"
        assert "s3cret" not in answer.text + caplog.text
    issuer.secret, issuer.about = "", {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    with live(redis_url, port, oidc_client_secret=SecretStr("s3cret"), **settings) as service:
        assert signed_in(service, issuer).status_code == 200


def test_its_secret_is_for_no_worker_and_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINSIGHT_OIDC_CLIENT_SECRET", "s3cret")
    assert "s3cret" not in plain_environment().values()
    note = tmp_path / "environment"
    tell = f"import os, pathlib, time; pathlib.Path({str(note)!r}).write_text(' '.join(os.environ.values())); time.sleep(60)"
    with kept_up([sys.executable, "-c", tell], "unix:///a-redis"):
        while not note.is_file() or not note.read_text():
            time.sleep(0.05)
    assert "unix:///a-redis" in note.read_text()
    assert "s3cret" not in note.read_text()


def test_over_https_the_cookies_are_secure(issuer: Issuer, redis_url: str) -> None:
    with live(redis_url, oidc_issuer=issuer.url, oidc_client_id=CLIENT, public_url="https://finsight.example/") as service:
        assert "Secure" in service.http.get("/session/oidc").headers["set-cookie"]
        assert "Secure" in service.http.post("/session", data={"key": ADMIN_KEY}).headers["set-cookie"]
        assert (
            "Secure"
            in service.http.post("/session", data={"key": ADMIN_KEY}, headers={"Origin": "https://finsight.example"}).headers["set-cookie"]
        )
        assert service.http.post("/session", data={"key": ADMIN_KEY}, headers={"Origin": "https://evil.example"}).status_code == 403


def test_without_an_issuer_there_is_a_line(redis_url: str) -> None:
    with live(redis_url) as service:
        assert "/session/oidc" not in service.http.get("/").text
        answer = service.http.get("/session/oidc")
        assert (answer.status_code, line(answer)) == (404, "this service has no issuer to sign in at; sign in with a key")


def test_strangers_can_not_begin_for_ever(issuer: Issuer, redis_url: str) -> None:
    settings = {"oidc_issuer": issuer.url, "oidc_client_id": CLIENT, "public_url": "https://finsight.example"}
    with live(redis_url, limits="session.go=3/minute", **settings) as service:
        assert [service.http.get("/session/oidc").status_code for _ in range(4)] == [303, 303, 303, 429]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "FINSIGHT_OIDC_ISSUER: unset"),
        ({"oidc_issuer": "https://issuer.example"}, "FINSIGHT_PUBLIC_URL: unset"),
        ({"oidc_issuer": "http://issuer.example"}, "FINSIGHT_OIDC_ISSUER: got"),
        (
            {"oidc_issuer": "https://issuer.example", "public_url": "https://x.example", "oidc_scope": "email"},
            "FINSIGHT_OIDC_SCOPE: got 'email'",
        ),
    ],
)
def test_settings_that_can_not_be_are_refused_at_the_start(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ParamsError, match=said):
        sign_in(Settings(oidc_client_id=CLIENT, **settings), frozenset({"oidc"}), "redis://127.0.0.1:1")
    assert sign_in(Settings(oidc_client_id=CLIENT, **settings), frozenset({"key"}), "redis://127.0.0.1:1") is None


@pytest.mark.parametrize(
    "address",
    ["finsight.example", "http://finsight.example", "https://", "https://a@b.example", "https://x.example/y?z", "http://[", "https://x:y"],
)
def test_a_public_address_is_that_of_a_site(address: str) -> None:
    with pytest.raises(ParamsError, match="FINSIGHT_PUBLIC_URL: expected https"):
        public_url(Settings(public_url=address))


@pytest.mark.long
@pytest.mark.parametrize("scripts", [True, False])
def test_in_a_browser_from_another_site(issuer: Issuer, redis_url: str, browser: Browser, scripts: bool) -> None:
    """The issuer is at localhost, the service at 127.0.0.1: two sites, between which browsers keep strict cookies back."""
    port = free_port()
    own = f"http://127.0.0.1:{port}"
    issuer.url = issuer.url.replace("127.0.0.1", "localhost")
    issuer.redirect = own + CALLBACK
    with live(redis_url, port, oidc_issuer=issuer.url, oidc_client_id=CLIENT, public_url=own):
        page = browser.new_context(base_url=own, java_script_enabled=scripts).new_page()
        page.set_default_timeout(60_000)
        page.goto("/")
        assert page.evaluate(CHECK) == []
        link = page.get_by_role("link", name=f"Sign in at {urlsplit(issuer.url).netloc}")
        link.press("Enter")
        page.get_by_role("link", name="No, thanks").click()
        assert page.get_by_role("alert").inner_text() == "nobody was signed in: you or the issuer refused"
        assert page.evaluate(CHECK) == []
        link.click()
        page.get_by_role("link", name="Sign in as ada").click()
        page.get_by_text("Signed in as oidc:ada").wait_for()
        assert page.url == f"{own}/"
        (cookie,) = page.context.cookies()
        assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (COOKIE, True, "Strict", "/")
        page.get_by_role("button", name="Sign out").click()
        assert page.get_by_role("status").inner_text() == "You are signed out."
        page.context.close()


def test_the_challenge_is_that_of_the_standard() -> None:
    """RFC 7636, appendix B."""
    assert Attempt("", "", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk").challenge == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
