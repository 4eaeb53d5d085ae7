"""How people sign in to the page at an issuer: chosen by the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from finsight.bootstrap.credentials import claims_of, issuer_of, loopback
from finsight.errors import ParamsError
from finsight.settings import Settings

if TYPE_CHECKING:
    from finsight.service_ports import Attempts, SignInIssuer

CALLBACK = "/session/oidc/callback"


@dataclass(frozen=True, slots=True)
class SignIn:
    """What the page's routes for it work with.

    :param place: the issuer's host, for people.
    """

    issuer: SignInIssuer
    attempts: Attempts
    place: str


def public_url(settings: Settings) -> str:
    """Where browsers reach the service, without a slash at the end; empty where that is unset.

    :raises ParamsError: when it is no address of a site.
    """
    if not settings.public_url:
        return ""
    try:
        found = urlsplit(settings.public_url)
        plain = found.port != 0 and not (found.path.strip("/") or found.query or found.fragment or "@" in found.netloc)
        local = found.scheme == "http" and loopback(found.hostname or "?")
    except ValueError:
        plain = False
    if not plain or not found.hostname or not (found.scheme == "https" or local):
        raise ParamsError("FINSIGHT_PUBLIC_URL: expected https:// and a host, and nothing after it, such as https://finsight.example")
    return f"{found.scheme}://{found.netloc}"


def sign_in(settings: Settings, ways: frozenset[str], redis: str) -> SignIn | None:
    """Signing in at the issuer of the settings; None where none is set up, or its way is closed.

    :param redis: address of the Redis that all replicas share: a sign-in may end at another than it began at.
    :raises ParamsError: when something that it needs is lacking.
    """
    if not settings.oidc_client_id or "oidc" not in ways:
        return None
    name, own = issuer_of(settings), public_url(settings)
    if name is None:
        raise ParamsError("FINSIGHT_OIDC_ISSUER: unset, so nobody can sign in with FINSIGHT_OIDC_CLIENT_ID; set it, or unset that")
    if not own:
        raise ParamsError("FINSIGHT_PUBLIC_URL: unset; the issuer sends browsers back to it, https://finsight.example for instance")
    if "openid" not in settings.oidc_scope.split():
        raise ParamsError(f"FINSIGHT_OIDC_SCOPE: got {settings.oidc_scope!r}; expected openid among it")
    from finsight.adapters.oidc import OidcIssuer
    from finsight.adapters.oidc_sign_in import OidcSignIn
    from finsight.adapters.redis_attempts import RedisAttempts
    from finsight.adapters.redis_connection import connect

    secret = settings.oidc_client_secret.get_secret_value() if settings.oidc_client_secret else ""
    issuer = OidcIssuer(name, claims_of(settings))
    chosen = OidcSignIn(issuer, settings.oidc_client_id, secret, own + CALLBACK, settings.oidc_scope)
    return SignIn(chosen, RedisAttempts(connect(redis)), urlsplit(name).netloc)
