"""Bearer tokens of an external issuer: a real server with real keys, and what it may do wrong."""

import base64
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from finsight.adapters import oidc
from finsight.adapters.oidc import AGED, LARGEST, LEEWAY, REFRESH, STALE, Claims, OidcIssuer
from finsight.bootstrap.credentials import token_issuer
from finsight.domain.access import Principal
from finsight.errors import ParamsError, UnreachableError
from finsight.settings import Settings
from gate import certificates
from issuers import AUDIENCE, KEYS, RSA, Issuer, issuing, jwk_of
from live import live
from servers import free_port


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def known(issuer: Issuer, clock: Callable[[], float] = time.monotonic, **claims: str) -> OidcIssuer:
    return OidcIssuer(issuer.url, Claims(AUDIENCE, **claims), clock=clock)


ADA = Principal("oidc:ada", "acme", frozenset({"scorer"}))


@pytest.mark.parametrize("name", ["rsa", "ec", "ed"])
def test_a_good_token_says_who(issuer: Issuer, name: str) -> None:
    issuer.keys = [jwk_of(name)]
    assert known(issuer).principal(issuer.token(name)) == ADA
    assert known(issuer).principal(issuer.token(name, {"kid": None})) == ADA  # of one key there is no doubt
    assert known(issuer).principal(issuer.token(name, aud=["other", AUDIENCE])) == ADA


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the standard library's server, of a handshake that the client broke off
def test_over_tls_an_authority_of_ones_own_has_to_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = certificates(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(made.certificate, made.key)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with issuing(tls) as issuer:
        with pytest.raises(UnreachableError):
            known(issuer).principal(issuer.token())
        assert issuer.asked == []
        monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
        assert known(issuer).principal(issuer.token()) == ADA


def test_keys_are_fetched_once(issuer: Issuer) -> None:
    outside = known(issuer)
    for _ in range(5):
        assert outside.principal(issuer.token("rsa")) == outside.principal(issuer.token("ec")) == ADA
    assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]


def test_a_token_that_is_not_for_us_is_none(issuer: Issuer) -> None:
    outside, now = known(issuer), int(time.time())
    for claims in (
        {"iss": "https://elsewhere"},
        {"iss": issuer.url + "/"},
        {"aud": "another service"},
        {"aud": None},
        {"iss": None},
        {"exp": None},
        {"sub": None},
        {"exp": now - LEEWAY - 1},
        {"nbf": now + LEEWAY + 5},
        {"exp": "soon"},
        {"sub": ""},
        {"sub": "a\nb"},
        {"sub": "x" * 201},
        {"tenant": None},
        {"tenant": ["acme"]},
    ):
        assert outside.principal(issuer.token(**claims)) is None, claims
    assert outside.principal(issuer.token(exp=now - LEEWAY + 5, nbf=now + LEEWAY - 5)) == ADA


def test_a_token_without_a_signature_of_the_issuers_is_none(issuer: Issuer) -> None:
    issuer.keys = [{k: v for k, v in jwk_of(name).items() if k != "alg"} for name in ("rsa", "ec")]  # nothing says which algorithm
    outside, good = known(issuer), issuer.token("rsa")
    header, payload, signature = good.split(".")
    claims = jwt.decode(good, options={"verify_signature": False})

    def part(content: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    forged = [jwt.encode(claims, None, "none", {"kid": "rsa"}), f"{part({'alg': 'None', 'kid': 'rsa'})}.{payload}.", f"{header}.{payload}."]
    for form in (serialization.Encoding.PEM, serialization.Encoding.DER):
        public = RSA.public_key().public_bytes(form, serialization.PublicFormat.SubjectPublicKeyInfo)
        signed = f"{part({'alg': 'HS256', 'kid': 'rsa'})}.{payload}"
        mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(signed.encode(), public)
        forged.append(f"{signed}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}")
    stranger = ec.generate_private_key(ec.SECP256R1())
    own_key = jwt.get_algorithm_by_name("ES256").to_jwk(stranger.public_key(), as_dict=True)
    forged += [
        jwt.encode(claims, stranger, "ES256", {"kid": "ec"}),
        jwt.encode(claims, stranger, "ES256", {"kid": "ec", "jwk": own_key, "jku": "http://127.0.0.1:1/"}),
        jwt.encode(claims, KEYS["ec"][1], "ES256", {"kid": "rsa"}),  # a good key under another's name
        f"{header}.{part({**claims, 'roles': ['admin']})}.{signature}",
        f"{base64.urlsafe_b64encode(b'[' * 30000).decode()}.{payload}.{signature}",
        good[:-2],
        "a.b.c",
        "",
    ]
    for token in forged:
        assert outside.principal(token) is None, token[:200]
    assert outside.principal(good) == ADA


def test_a_shared_secret_among_the_keys_counts_for_nothing(issuer: Issuer) -> None:
    secret = b"s" * 32
    issuer.keys.append({"kty": "oct", "kid": "oct", "k": base64.urlsafe_b64encode(secret).decode().rstrip("=")})
    issuer.keys.append({**jwk_of("ed"), "use": "enc"})
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    outside = known(issuer)
    assert outside.principal(issuer.token()) == ADA
    assert outside.principal(jwt.encode(claims, secret, "HS256", {"kid": "oct"})) is None
    assert outside.principal(issuer.token("ed")) is None


def test_an_unknown_key_is_asked_for_every_thirty_seconds_at_most(issuer: Issuer) -> None:
    clock = Clock()
    outside = known(issuer, clock)
    assert outside.principal(issuer.token("rsa")) == ADA
    issuer.keys = [jwk_of("ed")]
    assert outside.principal(issuer.token("ed")) is None
    clock.now += REFRESH - 1
    for n in range(50):
        assert outside.principal(issuer.token("ed", {"kid": f"made up {n}"})) is None
    assert len(issuer.asked) == 2
    clock.now += 1
    assert outside.principal(issuer.token("ed")) == ADA
    assert len(issuer.asked) == 4
    assert outside.principal(issuer.token("rsa")) is None  # taken back by the issuer


def test_an_issuer_that_is_down_is_no_refusal(issuer: Issuer) -> None:
    clock = Clock()
    outside = known(issuer, clock)
    issuer.status = 500
    for _ in range(3):
        with pytest.raises(UnreachableError, match="can't be checked until it answers"):
            outside.principal(issuer.token())
    assert len(issuer.asked) == 1
    issuer.status = 200
    clock.now += REFRESH
    assert outside.principal(issuer.token()) == ADA
    issuer.status = 500
    clock.now += STALE - 1
    assert outside.principal(issuer.token()) == ADA  # by the keys that are known
    with pytest.raises(UnreachableError):
        outside.principal(issuer.token("ed"))  # may be by a new one
    clock.now += 2
    with pytest.raises(UnreachableError):
        outside.principal(issuer.token())


def test_nobody_listening_is_no_refusal_either() -> None:
    issuer = Issuer()
    issuer.url = f"http://127.0.0.1:{free_port()}"
    outside = known(issuer)
    with pytest.raises(UnreachableError):
        outside.principal(issuer.token())
    assert outside.principal(jwt.encode({"iss": issuer.url}, "x" * 32, "HS256")) is None  # could never be good


@pytest.mark.parametrize(
    "wrong",
    [
        {"about": {"issuer": "https://elsewhere"}},
        {"about": {"jwks_uri": "file:///etc/passwd"}},
        {"about": {"jwks_uri": None}},
        {"about": {"jwks_uri": "http://["}},
        {"padding": LARGEST},
        {"keys": []},
        {"keys": "none"},
        {"keys": [1, {"kty": "new"}, {}]},
        {"status": 302},
    ],
)
def test_an_answer_that_is_none_is_no_key(issuer: Issuer, wrong: dict[str, Any]) -> None:
    for name, value in wrong.items():
        setattr(issuer, name, value)
    with pytest.raises(UnreachableError):
        known(issuer).principal(issuer.token())


def test_one_key_of_an_unknown_kind_does_not_spoil_the_others(issuer: Issuer) -> None:
    issuer.keys += [{"kty": "new", "kid": "new"}, jwk_of("ec", kid="x", crv="unknown"), None]
    assert known(issuer).principal(issuer.token()) == ADA


def test_many_at_once_fetch_once(issuer: Issuer) -> None:
    issuer.delay = 0.2
    outside, found = known(issuer), []
    threads = [threading.Thread(target=lambda: found.append(outside.principal(issuer.token()))) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert found == [ADA] * 8
    assert len(issuer.asked) == 2


def test_a_slow_issuer_holds_up_nobody_for_long(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    outside, known_token, made_up = known(issuer, clock), issuer.token(), issuer.token("rsa", {"kid": "made up"})
    assert outside.principal(known_token) == ADA
    monkeypatch.setattr(oidc, "PATIENCE", 0.2)
    clock.now += AGED + 1
    issuer.delay = 2.0
    asking = threading.Thread(target=lambda: outside.principal(known_token))
    asking.start()
    time.sleep(0.1)
    began = time.monotonic()
    assert outside.principal(known_token) == ADA  # by the key that is known
    with pytest.raises(UnreachableError, match="it is slow to answer; its tokens can't be checked"):
        outside.principal(made_up)
    assert time.monotonic() - began < 1.5
    asking.join()


def test_an_answer_that_trickles_is_none(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc, "PATIENCE", 0.3)
    pieces = httpx.MockTransport(lambda _: httpx.Response(200, stream=Trickle()))
    began = time.monotonic()
    with pytest.raises(UnreachableError, match=r"\(ReadTimeout\)"):
        OidcIssuer(issuer.url, Claims(AUDIENCE), httpx.Client(transport=pieces)).principal(issuer.token())
    assert time.monotonic() - began < 5


class Trickle(httpx.SyncByteStream):
    """A byte now and then, for a minute."""

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(600):
            time.sleep(0.1)
            yield b" "


def test_claims_are_where_the_settings_say(issuer: Issuer) -> None:
    token = issuer.token(realm={"roles": ["admin", "root", 7]}, **{"https://acme.example/tenant": "north"}, roles=None, tenant=None)
    nested = known(issuer, roles="realm.roles", tenant="https://acme.example/tenant")
    assert nested.principal(token) == Principal("oidc:ada", "north", frozenset({"admin"}))
    for roles in ("viewer", ["viewer"]):
        assert known(issuer, default_tenant="local").principal(issuer.token(roles=roles, tenant=None)) == Principal(
            "oidc:ada", "local", frozenset({"viewer"})
        )
    for roles in (None, {"admin": True}, 7, True):  # one without a role that we know is somebody, who may do nothing
        assert known(issuer).principal(issuer.token(roles=roles)) == Principal("oidc:ada", "acme", frozenset())


def test_through_the_service(issuer: Issuer, redis_url: str) -> None:
    settings = {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE}
    with live(redis_url, **settings) as service:
        bearer = f"Bearer {issuer.token()}"
        assert service.me(Authorization=bearer).json() == {"subject": "oidc:ada", "tenant": "acme", "roles": ["scorer"], "scopes": []}
        assert service.me(Authorization=f"Bearer {issuer.token(aud='other')}").status_code == 401
        assert service.me(Authorization=f"Bearer {service.token(service.make())}").status_code == 200
    issuer.status = 500
    with live(redis_url, **settings) as service:
        answer = service.me(Authorization=bearer)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "5"
        own = service.token(service.make())
        assert service.me(Authorization=f"Bearer {own}").status_code == 200
        assert service.me(Authorization=f"Bearer {own}x").status_code == 401  # ours to refuse; the issuer is not asked
    with live(redis_url, auth="key,token", **settings) as service:
        assert service.me(Authorization=bearer).status_code == 401
    with live(redis_url) as service:
        assert service.me(Authorization=bearer).status_code == 401


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"oidc_issuer": "https://issuer.example"}, "FINSIGHT_OIDC_AUDIENCE"),
        ({"oidc_issuer": "http://10.0.0.1", "oidc_audience": "x"}, "expected https"),
        ({"oidc_issuer": "file:///etc", "oidc_audience": "x"}, "expected https"),
    ],
)
def test_an_issuer_that_can_not_be_trusted_is_refused_at_start(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ParamsError, match=said):
        token_issuer(Settings(api_key=SecretStr("x"), **settings), frozenset({"oidc"}))
