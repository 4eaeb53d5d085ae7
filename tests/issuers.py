"""A real OpenID Connect issuer on loopback, with real keys, which holds clients to what the standards ask, and may do wrong itself."""

import base64
import hashlib
import html
import http.server
import json
import secrets
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from servers import serving

AUDIENCE = "finsight-api"
CLIENT = "finsight-page"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)  # once: it takes a while
KEYS: dict[str, tuple[str, Any]] = {
    "rsa": ("RS256", RSA),
    "ec": ("ES256", ec.generate_private_key(ec.SECP256R1())),
    "ed": ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
}


def jwk_of(name: str, **more: Any) -> dict[str, Any]:
    algorithm, private = KEYS[name]
    found = jwt.get_algorithm_by_name(algorithm).to_jwk(private.public_key(), as_dict=True)
    return {**found, "kid": name, "alg": algorithm, "use": "sig", **more}


class Issuer:
    """An issuer whose every answer a test can change.

    ``redirect`` is the one address that it sends browsers back to; ``claims`` differ in its ID tokens from what they should be.
    """

    def __init__(self) -> None:
        self.url = ""
        self.keys: list[Any] = [jwk_of(name) for name in ("rsa", "ec")]
        self.about: dict[str, Any] = {}
        self.status = 200
        self.padding = 0
        self.asked: list[str] = []
        self.delay = 0.0
        self.redirect, self.secret = "", ""
        self.claims: dict[str, Any] = {}
        self.answer: dict[str, Any] | None = None  # of the token endpoint, in place of its own
        self.codes: dict[str, dict[str, str]] = {}

    def token(self, name: str = "rsa", headers: dict[str, Any] | None = None, **claims: Any) -> str:
        now, (algorithm, private) = int(time.time()), KEYS[name]
        content = {"iss": self.url, "aud": AUDIENCE, "sub": "ada", "exp": now + 300, "iat": now, "tenant": "acme", "roles": ["scorer"]}
        content = {key: value for key, value in {**content, **claims}.items() if value is not None}
        header = {name: value for name, value in {"kid": name, **(headers or {})}.items() if value is not None}
        return jwt.encode(content, private, algorithm, header)

    def discovery(self) -> dict[str, Any]:
        found = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        found |= {"authorization_endpoint": f"{self.url}/authorize?realm=x", "token_endpoint": f"{self.url}/token"}
        return {**found, **self.about}

    def allowed(self, asked: dict[str, str]) -> str:
        """Where the browser is sent once somebody has signed in: RFC 6749, 4.1.2."""
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        return f"{self.redirect}?{urlencode({'code': code, 'state': asked['state']})}"

    def denied(self, asked: dict[str, str]) -> str:
        return f"{self.redirect}?{urlencode({'error': 'access_denied', 'state': asked['state']})}"

    def authorize(self, asked: dict[str, str]) -> tuple[int, str]:
        """The page that asks who is there; only for a request that is whole."""
        wanted = {
            "response_type": "code",
            "client_id": CLIENT,
            "redirect_uri": self.redirect,
            "code_challenge_method": "S256",
            "realm": "x",
        }
        lacking = [name for name in ("state", "nonce") if len(asked.get(name, "")) < 40]
        if not wanted.items() <= asked.items() or lacking or len(asked.get("code_challenge", "")) != 43 or "openid" not in asked["scope"]:
            return 400, f"a wrong request: {asked}"
        links = {"Sign in as ada": self.allowed(asked), "No, thanks": self.denied(asked)}
        return 200, "".join(f'<p><a href="{html.escape(where)}">{name}</a></p>' for name, where in links.items())

    def exchange(self, form: dict[str, str], basic: str) -> tuple[int, dict[str, Any]]:
        """A token for a code, once, to who began (RFC 6749, 4.1.3; RFC 7636, 4.6)."""
        if self.answer is not None:
            return self.status, self.answer
        if self.secret and basic != "Basic " + base64.b64encode(f"{CLIENT}:{self.secret}".encode()).decode():
            return 401, {"error": "invalid_client"}
        begun = self.codes.pop(form.get("code", ""), None)
        shown = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest()).rstrip(b"=").decode()
        if begun is None or shown != begun["code_challenge"] or form.get("redirect_uri") != self.redirect:
            return 400, {"error": "invalid_grant"}
        if form.get("grant_type") != "authorization_code" or (not self.secret and form.get("client_id") != CLIENT):
            return 400, {"error": "invalid_request"}
        made = self.token(**{"aud": CLIENT, "nonce": begun["nonce"], **self.claims})
        return 200, {"access_token": "for nobody", "token_type": "Bearer", "expires_in": 300, "id_token": made}


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuing() as state:
        yield state


@contextmanager
def issuing(tls: ssl.SSLContext | None = None) -> Iterator[Issuer]:
    """An issuer at work on loopback, over TLS where there is a context with its certificate."""
    state = Issuer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            time.sleep(state.delay)
            if self.path.startswith("/authorize"):
                status, page = state.authorize(dict(parse_qsl(urlsplit(self.path).query)))
                self._say(status, page.encode(), "text/html")
                return
            content = state.discovery() if self.path.startswith("/.well-known") else {"keys": state.keys}
            self._say(state.status, json.dumps(content).encode() + b" " * state.padding)

        def do_POST(self) -> None:
            form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
            status, content = state.exchange(form, self.headers.get("Authorization", ""))
            self._say(status, json.dumps(content).encode())

        def _say(self, status: int, content: bytes, kind: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    with serving(Handler, tls) as state.url:
        yield state
