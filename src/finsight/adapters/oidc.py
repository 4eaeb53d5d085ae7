"""An external OpenID Connect issuer: its endpoints and keys by discovery, its tokens, and who their claims say that somebody is."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import jwt

from finsight.domain.access import Principal
from finsight.domain.keys import ROLES
from finsight.errors import UnreachableError

# Asymmetric ones alone: an issuer's public key must never count as a secret (HS256), nor nothing as a signature (none).
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
REFRESH = 30.0  # seconds between two fetches at least: unknown key ids are free to make up
AGED = 3600.0  # seconds after which keys are fetched anew, since an issuer may take one back
STALE = 86400.0  # seconds after which keys that could not be fetched anew count no more
LEEWAY = 30  # seconds that the issuer's clock may differ
LARGEST = 1 << 20  # bytes of an answer
PATIENCE = 5.0  # seconds until each part of an answer comes, until the whole of it has, and that anybody waits for what another asks
LONGEST = 200  # characters of a subject or a tenant
_LOG = logging.getLogger("finsight.service")


@dataclass(frozen=True, slots=True)
class Claims:
    """What to look for in a token.

    :param audience: this service's name at the issuer.
    :param roles: claim with a list of roles, or one; a dotted path where it stands within others. Roles that we don't know don't count.
    :param tenant: claim with the tenant, likewise.
    :param default_tenant: the tenant of a token that names none; such a token is refused where this is empty.
    """

    audience: str
    roles: str = "roles"
    tenant: str = "tenant"
    default_tenant: str = ""


class OidcIssuer:
    """See :class:`finsight.service_ports.TokenIssuer`.

    :param issuer: its address, exactly as its tokens spell it.
    """

    def __init__(
        self, issuer: str, claims: Claims, client: httpx.Client | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name, self._claims = issuer, claims
        self._known = _Discovered(issuer, client or httpx.Client(timeout=PATIENCE, follow_redirects=False), clock)

    def principal(self, token: str) -> Principal | None:
        """See :class:`finsight.service_ports.TokenIssuer`.

        :raises UnreachableError: when the issuer can't be asked for the key of the token; it may well be good.
        """
        found = self.verified(token, self._claims.audience)
        return self.somebody(found) if found else None

    def verified(self, token: str, audience: str) -> Mapping[str, Any] | None:
        """The claims of a token of the issuer's for an audience; None where it is none such, or not good now. Raises as `principal`."""
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                return None  # before the issuer is asked anything
            key = self._known.key(header.get("kid"))
            if key is None:
                return None
            found: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,  # and of these the one that the key is bound to
                audience=audience,
                issuer=self.name,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud", "sub"], "enforce_minimum_key_length": True},
            )
        except (jwt.PyJWTError, ValueError, OverflowError, RecursionError):  # the last of a header nested a thousand deep
            return None
        return found

    def somebody(self, found: Mapping[str, Any]) -> Principal | None:
        """Who the claims of a token speak of; None where they name nobody, or no tenant."""
        subject, tenant = found["sub"], _claim(found, self._claims.tenant) or self._claims.default_tenant
        if not all(isinstance(text, str) and text.isprintable() and 0 < len(text) <= LONGEST for text in (subject, tenant)):
            return None
        named = _claim(found, self._claims.roles)
        listed = [named] if isinstance(named, str) else named if isinstance(named, list) else []
        roles = frozenset(role for role in listed if role in ROLES)
        return Principal(f"oidc:{subject}", tenant, roles)

    def about(self) -> Mapping[str, Any]:
        """The issuer's discovery document.

        :raises UnreachableError: when it can't be had.
        """
        return self._known.about()

    def ask(self, method: str, url: str, **how: Any) -> tuple[int, dict[str, Any]]:
        """The status and the JSON object of an answer of the issuer's.

        :param how: see :meth:`httpx.Client.stream`.
        :raises ValueError, httpx.HTTPError: when there is no such answer.
        """
        return self._known.ask(method, url, **how)


class _Discovered:
    """What an issuer says of itself, and its public keys by id: fetched when they are needed."""

    def __init__(self, issuer: str, client: httpx.Client, clock: Callable[[], float]) -> None:
        self._issuer, self._client, self._clock = issuer, client, clock
        self._lock = threading.Lock()
        self._about: dict[str, Any] = {}
        self._known: dict[str | None, jwt.PyJWK] = {}
        self._fetched = self._tried = -STALE
        self._failed = ""

    def key(self, name: str | None) -> jwt.PyJWK | None:
        """The key of an id, or the only one for a token that names none; None where the issuer has none such.

        :raises UnreachableError: when that can't be known.
        """
        found = self._good(name)
        if self._clock() - self._fetched > AGED or found is None:
            failed = self._refresh(0 if found else PATIENCE)
            found = self._good(name)
            if found is None and failed:
                raise UnreachableError(f"{self._issuer}: {failed}; its tokens can't be checked until it answers")
        return found

    def about(self) -> Mapping[str, Any]:
        """The discovery document.

        :raises UnreachableError: when it can't be had.
        """
        failed, age = "", self._clock() - self._fetched
        if age > AGED:
            failed = self._refresh(0 if age <= STALE else PATIENCE)
        if self._clock() - self._fetched > STALE:
            raise UnreachableError(f"{self._issuer}: {failed}; nobody can sign in there until it answers")
        return self._about

    def _good(self, name: str | None) -> jwt.PyJWK | None:
        return self._of(name) if self._clock() - self._fetched <= STALE else None

    def _of(self, name: str | None) -> jwt.PyJWK | None:
        if name is None and len(self._known) == 1:
            return next(iter(self._known.values()))
        return self._known.get(name)

    def _refresh(self, wait: float) -> str:
        """Fetch all anew; why there is nothing new, or that nobody knows yet, where somebody else has been asking for longer than that.

        :param wait: seconds. Who waits finds the keys, or that it was tried; strangers' tokens must not hold all threads meanwhile.
        """
        if not self._lock.acquire(timeout=wait):
            return "it is slow to answer"
        try:
            if self._clock() - self._tried < REFRESH:
                return self._failed
            try:
                self._about, self._known = self._fetch()
                self._failed, self._fetched = "", self._clock()
            except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError, jwt.PyJWTError) as error:
                self._failed = f"no keys to be had from it ({type(error).__name__})"
                _LOG.warning("%s: %s", self._issuer, self._failed)
            self._tried = self._clock()
            return self._failed
        finally:
            self._lock.release()

    def _fetch(self) -> tuple[dict[str, Any], dict[str | None, jwt.PyJWK]]:
        about = self._get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        where = str(about.get("jwks_uri"))
        # OpenID Connect Discovery 1.0, 4.3: another issuer's document would lend us another issuer's keys.
        if about.get("issuer") != self._issuer or httpx.URL(where).scheme != httpx.URL(self._issuer).scheme:
            raise ValueError("the discovery document is another issuer's")
        found: dict[str | None, jwt.PyJWK] = {}
        entries = self._get(where).get("keys")
        for entry in entries if isinstance(entries, list) else []:
            if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or entry.get("kty") == "oct":
                continue
            if not isinstance(entry.get("kid"), str | None):
                continue
            try:
                found[entry.get("kid")] = jwt.PyJWK(entry)
            except jwt.PyJWTError:
                continue  # of a kind that we don't know; the issuer's other keys are good none the less
        if not found:
            raise ValueError("no key that we know the kind of")
        return about, found

    def _get(self, url: str) -> dict[str, Any]:
        status, found = self.ask("GET", url)
        if status != httpx.codes.OK:
            raise ValueError(f"status {status}")
        return found

    def ask(self, method: str, url: str, **how: Any) -> tuple[int, dict[str, Any]]:
        """See :meth:`OidcIssuer.ask`."""
        until, content = time.monotonic() + PATIENCE, b""
        with self._client.stream(method, url, headers={"Accept": "application/json"}, **how) as answer:
            for piece in answer.iter_bytes():
                content += piece
                if len(content) > LARGEST:
                    raise ValueError("too large")
                if time.monotonic() > until:
                    raise httpx.ReadTimeout("too slow")
        found = json.loads(content)
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
        return answer.status_code, found


def _claim(found: Mapping[str, Any], name: str) -> Any:
    """A claim by its name, which may be an address with dots, or by a path of names."""
    if name in found:
        return found[name]
    value: Any = found
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
