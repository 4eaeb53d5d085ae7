"""Signing in at an OpenID Connect issuer: where the browser goes, and what the code is worth that it comes back with."""

from __future__ import annotations

import contextlib
import hmac
import re
from typing import Any
from urllib.parse import quote

import httpx

from finsight.adapters.oidc import OidcIssuer
from finsight.domain.access import Principal
from finsight.domain.sign_in import Attempt
from finsight.errors import UnreachableError
from finsight.service_ports import NotSignedInError

_ERROR = re.compile(r"[a-z_]{1,40}")  # as RFC 6749, 5.2 has them; what else an issuer may say is not repeated
_BASIC, _POST = "client_secret_basic", "client_secret_post"
_FAILURES = (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError)


class OidcSignIn:
    """See :class:`finsight.service_ports.SignInIssuer`.

    :param client: the service's id at the issuer, which its ID tokens are for.
    :param secret: empty for a public client, which has PKCE alone.
    :param redirect: the address that the issuer sends browsers back to.
    :param scope: what is asked for; ``openid`` is among it.
    """

    def __init__(self, issuer: OidcIssuer, client: str, secret: str, redirect: str, scope: str = "openid") -> None:
        self._issuer, self._client, self._secret, self._redirect, self._scope = issuer, client, secret, redirect, scope

    def address(self, attempt: Attempt) -> str:
        """See :class:`finsight.service_ports.SignInIssuer`."""
        asked = {
            "response_type": "code",
            "client_id": self._client,
            "redirect_uri": self._redirect,
            "scope": self._scope,
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": attempt.challenge,
            "code_challenge_method": "S256",
        }
        return str(self._endpoint("authorization_endpoint").copy_merge_params(asked))

    def principal(self, code: str, attempt: Attempt) -> Principal:
        """See :class:`finsight.service_ports.SignInIssuer`."""
        token = self._exchanged(code, attempt)
        found = self._issuer.verified(token, self._client)
        if found is None:
            raise NotSignedInError("the issuer's ID token is not good here, or has expired; sign in again")
        if not hmac.compare_digest(str(found.get("nonce")).encode(), attempt.nonce.encode()):
            raise NotSignedInError("the issuer's ID token is of another sign-in (nonce); sign in again")
        # OpenID Connect Core 1.0, 3.1.3.7: a token for several may have been given to another of them.
        several = isinstance(found["aud"], list) and len(found["aud"]) > 1
        if found.get("azp", None if several else self._client) != self._client:
            raise NotSignedInError("the issuer's ID token was given to another service (azp); sign in again")
        somebody = self._issuer.somebody(found)
        if somebody is None:
            raise NotSignedInError("the issuer's ID token names nobody, or no tenant, and FINSIGHT_OIDC_TENANT is unset")
        return somebody

    def _exchanged(self, code: str, attempt: Attempt) -> str:
        """The ID token that the issuer gives for a code."""
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": self._redirect, "code_verifier": attempt.verifier}
        endpoint = self._endpoint("token_endpoint")
        try:
            status, found = self._issuer.ask("POST", str(endpoint), **self._as_client(form))
        except _FAILURES as error:
            raise UnreachableError(f"{self._issuer.name}: no token to be had from it ({type(error).__name__}); try again") from None
        if status == httpx.codes.OK and isinstance(found.get("id_token"), str):
            return str(found["id_token"])
        if status >= 500:
            raise UnreachableError(f"{self._issuer.name}: no token to be had from it (status {status}); try again")
        said = str(found.get("error"))
        raise NotSignedInError(f"the issuer does not take the code ({said if _ERROR.fullmatch(said) else status}); sign in again")

    def _as_client(self, form: dict[str, str]) -> dict[str, Any]:
        """The form with who we are, in the way that the issuer knows (RFC 6749, 2.3.1)."""
        if not self._secret:
            return {"data": {**form, "client_id": self._client}}
        ways = self._issuer.about().get("token_endpoint_auth_methods_supported", [_BASIC])
        if isinstance(ways, list) and _BASIC not in ways and _POST in ways:
            return {"data": {**form, "client_id": self._client, "client_secret": self._secret}}
        return {"data": form, "auth": (quote(self._client, safe=""), quote(self._secret, safe=""))}

    def _endpoint(self, name: str) -> httpx.URL:
        """An endpoint of the issuer's; one of another origin would get our codes and our secret.

        :raises UnreachableError: when it has none such, or does not answer.
        """
        found, own = httpx.URL(), httpx.URL(self._issuer.name)
        with contextlib.suppress(httpx.InvalidURL):
            found = httpx.URL(str(self._issuer.about().get(name)))
        if (found.scheme, found.host, found.port) != (own.scheme, own.host, own.port):
            raise UnreachableError(f"{self._issuer.name}: its discovery document has no {name} at its own address; sign in with a key")
        return found
