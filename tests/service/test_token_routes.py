"""The service's own tokens: bought with a key, and every way in which one is none."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import pyrage
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from redis import Redis

from finsight.adapters.redis_connection import connect
from finsight.adapters.redis_signing import RedisSigningKeys
from finsight.errors import ArtifactError, ParamsError
from finsight.service.tokens import AUDIENCE, ISSUER, LEEWAY, LIFETIME, Tokens
from live import ADMIN_KEY, Live, live

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def running(redis_server: str) -> Iterator[Live]:
    with live(redis_server) as opened:
        yield opened


@pytest.fixture
def service(running: Live, redis_url: str) -> Live:
    """One service for all, each time with nothing in its Redis."""
    return running


@pytest.fixture
def signing(redis_url: str) -> RedisSigningKeys:
    return RedisSigningKeys(connect(redis_url), LIFETIME + LEEWAY)


def refused(answer: httpx.Response, status: int, error: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.json()["error"] == error
    assert answer.json()["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"


def claims_of(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


def test_a_key_buys_a_token_in_the_form_or_by_basic(service: Live) -> None:
    made = service.make(roles=["scorer"], scopes=["me.read", "predict"], tenant="acme")
    answer = service.buy(made)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    content = answer.json()
    assert {**content, "access_token": ""} == {"access_token": "", "token_type": "Bearer", "expires_in": 600, "scope": "me.read predict"}
    me = service.me(Authorization=f"Bearer {content['access_token']}").json()
    assert me == service.me(X_API_Key=made["key"]).json()
    basic = httpx.BasicAuth(made["id"], made["client_secret"])
    again = service.http.post("/v1/auth/token", data={"grant_type": "client_credentials"}, auth=basic)
    assert service.me(Authorization=f"bearer {again.json()['access_token']}").json() == me
    assert claims_of(again.json()["access_token"])["jti"] != claims_of(content["access_token"])["jti"]


def test_a_scope_narrows_a_token_and_never_widens_it(service: Live) -> None:
    made, free = service.make(scopes=["me.read", "predict"]), service.make()
    token = service.token(made, scope="predict")
    answer = service.me(Authorization=f"Bearer {token}")
    assert (answer.status_code, answer.json()["detail"].split(":")[2]) == (
        403,
        " the credential is narrowed to predict; an admin of this service can allow it",
    )
    assert service.me(Authorization=f"Bearer {service.token(free, scope='me.read')}").json()["scopes"] == ["me.read"]
    for wrong in ("keys.create", "me.read keys.create", "ME.READ", "me.read  predict", "*", " "):
        refused(service.buy(made, scope=wrong), 400, "invalid_scope")


def test_a_scope_may_be_the_beginning_of_actions(service: Live) -> None:
    made = service.make(roles=["trainer"], scopes=["jobs.create.*"])
    for scope in ("jobs.create.*", "jobs.create.train"):
        assert service.buy(made, scope=scope).json()["scope"] == scope
    for wrong in ("jobs.*", "jobs.create", "jobs.create.trian"):
        refused(service.buy(made, scope=wrong), 400, "invalid_scope")


def test_a_client_that_is_none_buys_nothing(service: Live) -> None:
    made, other = service.make(), service.make()
    for wrong in (
        {"client_secret": other["client_secret"]},
        {"client_id": other["id"]},
        {"client_id": "admin"},
        {"client_secret": ADMIN_KEY},
    ):
        answer = service.buy(made, **wrong)
        refused(answer, 401, "invalid_client")
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="finsight"'
    asked = {"grant_type": "client_credentials"}
    refused(service.http.post("/v1/auth/token", data=asked), 401, "invalid_client")
    for header in ("Basic", "Basic !", "Basic eHg=", "Bearer x", "Basic w7w6eA=="):
        refused(service.http.post("/v1/auth/token", data=asked, headers={"Authorization": header}), 401, "invalid_client")


def test_what_is_no_request_of_oauth_is_told_so(service: Live) -> None:
    made = service.make()
    client = f"client_id={made['id']}&client_secret={made['client_secret']}"
    good = f"grant_type=client_credentials&{client}"

    def post(body: str | bytes, **more: Any) -> httpx.Response:
        return service.http.post("/v1/auth/token", content=body, **{"headers": FORM, **more})

    assert post(good + "&unknown=ignored&scope=").status_code == 200
    refused(post(client), 400, "invalid_request")
    refused(post(f"grant_type=password&{client}"), 400, "unsupported_grant_type")
    refused(post(good + "&grant_type=client_credentials"), 400, "invalid_request")
    refused(post(good + "&scope=%FF"), 400, "invalid_request")
    refused(post(good.encode() + b"\xff"), 400, "invalid_request")
    refused(post(good + "&a=1" * 20), 400, "invalid_request")
    refused(post(json.dumps({"grant_type": "client_credentials"}), headers={"Content-Type": "application/json"}), 400, "invalid_request")
    refused(post(good, auth=httpx.BasicAuth(made["id"], made["client_secret"])), 400, "invalid_request")
    assert post(good + "&x=" + "y" * 9000).status_code == 413


def test_a_token_ends_with_its_key(service: Live) -> None:
    revoked, admin = service.make(), {"X-API-Key": ADMIN_KEY}
    token = service.token(revoked)
    assert service.me(Authorization=f"Bearer {token}").status_code == 200
    service.http.delete(f"/v1/keys/{revoked['id']}", headers=admin)
    assert service.me(Authorization=f"Bearer {token}").status_code == 401


def test_a_token_ends_with_the_secret_that_bought_it(service: Live) -> None:
    made, admin = service.make(), {"X-API-Key": ADMIN_KEY}
    first = service.token(made)
    second = service.http.post(f"/v1/keys/{made['id']}/rotate", json={"grace_seconds": 60}, headers=admin).json()
    assert service.me(Authorization=f"Bearer {first}").status_code == 200
    later = service.token(second)
    service.http.post(f"/v1/keys/{made['id']}/rotate", json={"grace_seconds": 60}, headers=admin)
    assert service.me(Authorization=f"Bearer {first}").status_code == 401
    assert service.me(Authorization=f"Bearer {later}").status_code == 200


def test_a_token_does_not_outlive_its_key(service: Live) -> None:
    from dataclasses import replace

    made = service.make()
    service.own.keys.change(made["id"], lambda key: replace(key, expires=time.time() + 100))
    assert service.buy(made).json()["expires_in"] in (99, 100)


def test_each_part_of_a_token_is_held_together_by_its_signature(service: Live) -> None:
    token = service.token(service.make(scopes=["me.read"]))
    parts = token.split(".")
    for i in range(3):
        raw = bytearray(base64.urlsafe_b64decode(parts[i] + "=="))
        for place in (0, len(raw) // 2, len(raw) - 1):
            changed = bytearray(raw)
            changed[place] ^= 1
            forged = [*parts[:i], base64.urlsafe_b64encode(changed).decode().rstrip("="), *parts[i + 1 :]]
            assert service.me(Authorization=f"Bearer {'.'.join(forged)}").status_code == 401
    content = {**claims_of(token), "scope": ""}
    widened = base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
    for wrong in (f"{parts[0]}.{widened}.{parts[2]}", f"{parts[0]}.{parts[1]}.", f"{parts[0]}.{parts[1]}", "..", ".", token + "x"):
        assert service.me(Authorization=f"Bearer {wrong}").status_code == 401
    assert service.me(Authorization=f"Bearer {token}").status_code == 200


class Forger:
    """Makes tokens with the service's own signing key, which nobody has, to see that the rest is checked too."""

    def __init__(self, service: Live, signing: RedisSigningKeys) -> None:
        self._key, self._claims = signing.current(), claims_of(service.token(service.make()))
        self.private = Ed25519PrivateKey.from_private_bytes(self._key.private)

    def __call__(self, headers: dict[str, Any] | None = None, leave: str = "", **claims: Any) -> str:
        content = {name: value for name, value in {**self._claims, **claims}.items() if name != leave}
        return jwt.encode(content, self.private, "EdDSA", {"kid": self._key.name, "typ": "at+jwt", **(headers or {})})


@pytest.fixture
def forge(service: Live, signing: RedisSigningKeys) -> Forger:
    return Forger(service, signing)


def test_every_claim_is_asked_for_and_checked(service: Live, forge: Forger) -> None:
    assert service.me(Authorization=f"Bearer {forge()}").status_code == 200
    assert (ISSUER, AUDIENCE) == ("urn:finsight", "urn:finsight:v1")
    wrong = [forge(leave=name) for name in ("iss", "aud", "exp", "nbf", "iat", "sub", "jti", "scope", "ksh")]
    wrong += [forge(iss="urn:other"), forge(aud="urn:other"), forge(sub="0" * 24), forge(ksh="0" * 16)]
    wrong += [
        forge({"typ": "JWT"}),
        forge({"kid": f"fs-{'0' * 16}"}),
        forge({"kid": "fs-../../x"}),
        forge({"kid": "fs-" + "\ud800" * 16}),
        forge({"crit": ["x"], "x": 1}),
    ]
    assert len(wrong) <= 20  # the address is refused after that, whatever it presents
    for token in wrong:
        assert service.me(Authorization=f"Bearer {token}").status_code == 401, claims_of(token)


def test_clocks_may_differ_by_the_leeway_and_no_more(service: Live, forge: Forger) -> None:
    now = int(time.time())
    for token, good in [
        (forge(exp=now - LEEWAY + 5), True),
        (forge(exp=now - LEEWAY - 1), False),
        (forge(nbf=now + LEEWAY - 5, iat=now + LEEWAY - 5), True),
        (forge(nbf=now + LEEWAY + 5), False),
        (forge(iat=now + LEEWAY + 5), False),
    ]:
        assert (service.me(Authorization=f"Bearer {token}").status_code == 200) is good, claims_of(token)


def test_the_algorithm_is_ours_to_choose(service: Live, forge: Forger, signing: RedisSigningKeys) -> None:
    header = {"kid": signing.current().name, "typ": "at+jwt"}
    content = claims_of(forge())
    public = forge.private.public_key()
    raw, pem = public.public_bytes_raw(), public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert signing.public(header["kid"]) == raw
    none = jwt.encode(content, None, "none", header)
    by_hand = []
    for secret in (raw, pem):  # PyJWT itself refuses to sign so
        signed = ".".join(
            base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({**header, "alg": "HS256"}, content)
        )
        mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(signed.encode(), secret)
        by_hand.append(f"{signed}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}")
    other = jwt.encode(content, Ed25519PrivateKey.generate(), "EdDSA", header)
    for token in (none, *by_hand, other):
        assert service.me(Authorization=f"Bearer {token}").status_code == 401


def test_signing_keys_change_by_age_and_the_old_ones_are_still_checked(redis_url: str, service: Live) -> None:
    aging = RedisSigningKeys(connect(redis_url), lifetime=2, rotate=1)
    with Redis.from_url(redis_url) as client:
        client.delete("finsight:signing")
    made = service.make()
    key = service.own.keys.get(made["id"])
    assert key is not None
    tokens = Tokens(service.own.keys, aging)
    first, _ = tokens.issue(key, key.digest, frozenset())
    time.sleep(1.1)
    second, _ = tokens.issue(key, key.digest, frozenset())
    names = [jwt.get_unverified_header(token)["kid"] for token in (first, second)]
    assert names[0] != names[1]
    assert tokens.principal(first) == tokens.principal(second) == key.holder()
    time.sleep(2)
    assert tokens.principal(first) is None
    assert aging.public(names[0]) is None


def test_replicas_that_start_at_once_sign_with_one_key(redis_url: str) -> None:
    found: list[str] = []
    replicas = [RedisSigningKeys(connect(redis_url), 60) for _ in range(8)]
    threads = [threading.Thread(target=lambda one=one: found.append(one.current().name)) for one in replicas]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    with Redis.from_url(redis_url) as client:
        assert len(list(client.scan_iter("finsight:signing*"))) == 2


def test_private_keys_are_encrypted_where_a_key_for_that_is_given(redis_url: str) -> None:
    identity = str(pyrage.x25519.Identity.generate())
    key = RedisSigningKeys(connect(redis_url), 60, identity).current()
    with Redis.from_url(redis_url) as client:
        kept = client.get(f"finsight:signing:{key.name}")
        private = base64.b64decode(json.loads(kept)["private"])
        assert private.startswith(b"age-encryption.org/v1")
        assert key.private not in private
    assert RedisSigningKeys(connect(redis_url), 60, identity).current() == key
    for other in (None, str(pyrage.x25519.Identity.generate())):
        with pytest.raises(ArtifactError, match="can't be decrypted") as caught:
            RedisSigningKeys(connect(redis_url), 60, other).current()
        assert identity not in str(caught.value)
    with pytest.raises(ParamsError, match="FINSIGHT_ENCRYPTION_KEY"):
        RedisSigningKeys(connect(redis_url), 60, "no identity")


def test_a_key_that_is_gone_is_replaced_although_its_name_is_there(redis_url: str) -> None:
    keys = RedisSigningKeys(connect(redis_url), 60)
    first = keys.current()
    with Redis.from_url(redis_url, decode_responses=True) as client:
        client.delete(f"finsight:signing:{first.name}")
        second = keys.current()
        assert client.get("finsight:signing") == second.name != first.name
    assert keys.current() == second
    assert (keys.public(first.name), keys.public(second.name) is None) == (None, False)


def test_a_key_that_cannot_be_decrypted_says_what_to_do(service: Live, redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    made = service.make()
    identity = str(pyrage.x25519.Identity.generate())
    name = RedisSigningKeys(connect(redis_url), 60, identity).current().name  # a replica's, which has a key that we don't
    answer = service.buy(made)
    assert answer.status_code == 500
    problem = answer.json()
    assert problem["type"] == "urn:finsight:problem:signing-key"
    assert f"finsight:signing:{name}: can't be decrypted; give every replica the FINSIGHT_ENCRYPTION_KEY" in problem["detail"]
    assert f"{problem['correlation_id']}: finsight:signing:{name}" in caplog.text
    with Redis.from_url(redis_url) as client:
        client.delete("finsight:signing")  # as it says
    assert service.me(Authorization=f"Bearer {service.token(made)}").status_code == 200


def test_ways_that_are_switched_off_are_closed(redis_url: str) -> None:
    with live(redis_url, auth="key") as service:
        made = service.make()
        assert service.buy(made).status_code == 404
        assert service.me(X_API_Key=made["key"]).status_code == 200
    with live(redis_url, auth="token") as service:
        assert service.me(X_API_Key=made["key"]).status_code == 401
        assert service.me(X_API_Key=ADMIN_KEY).status_code == 200
        token = service.token(made)
        assert service.me(Authorization=f"Bearer {token}").status_code == 200
    with live(redis_url, auth="key") as service:
        assert service.me(Authorization=f"Bearer {token}").status_code == 401
