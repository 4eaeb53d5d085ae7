"""Whom the service believes, and where their credentials are kept: chosen by the settings."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from finsight.errors import ParamsError
from finsight.settings import Settings

if TYPE_CHECKING:
    from finsight.adapters.oidc import Claims
    from finsight.service_ports import FailedAttempts, KeyStore, SigningKeys, Tickets, TokenIssuer

WAYS = frozenset({"key", "token", "oidc"})


@dataclass(frozen=True, slots=True)
class CredentialStores:
    """Where credentials are kept."""

    keys: KeyStore
    signing: SigningKeys
    tickets: Tickets
    failures: FailedAttempts


def credential_stores(url: str, settings: Settings, token_lifetime: int) -> CredentialStores:
    """Stores in the Redis at ``url``.

    :param token_lifetime: seconds that a token may be good, leeway included.
    :raises ParamsError: when the address or the encryption key is none, or that Redis drops what it should keep.
    """
    from finsight.adapters.redis_connection import connect, refuse_forgetful
    from finsight.adapters.redis_failures import RedisFailures
    from finsight.adapters.redis_keys import RedisKeys
    from finsight.adapters.redis_signing import RedisSigningKeys
    from finsight.adapters.redis_tickets import RedisTickets

    client = connect(url)
    refuse_forgetful(client)
    encryption = settings.encryption_key.get_secret_value() if settings.encryption_key else None
    signing = RedisSigningKeys(client, token_lifetime, encryption)
    return CredentialStores(RedisKeys(client), signing, RedisTickets(client), RedisFailures(client))


def ways_in(settings: Settings, host: str) -> frozenset[str]:
    """The ways of FINSIGHT_AUTH; none of them where it is ``off``.

    :param host: where the service is going to listen.
    :raises ParamsError: when one is unknown, or authentication is off where others could reach the service.
    """
    named = frozenset(one.strip() for one in settings.auth.lower().split(",") if one.strip())
    if named == {"off"}:
        if not loopback(host):
            raise ParamsError(f"FINSIGHT_AUTH=off: {host} can be reached from other machines; listen on 127.0.0.1, or unset it")
        return frozenset()
    if not named or not named <= WAYS:
        raise ParamsError(f"FINSIGHT_AUTH: got {settings.auth!r}; expected off, or some of key, token and oidc separated by commas")
    return named


def loopback(host: str) -> bool:
    """Whether a service that listens there is reached from this machine alone."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host or None, 0, flags=socket.AI_PASSIVE)}
    except (OSError, UnicodeError):
        return False
    return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found)


def token_issuer(settings: Settings, ways: frozenset[str]) -> TokenIssuer | None:
    """The external issuer of the settings, for bearer tokens; None where there is none, its way is closed, or only the page uses it.

    :raises ParamsError: when its audience is lacking, or its keys would come over an open network.
    """
    name = issuer_of(settings) if "oidc" in ways else None
    if name is None or (settings.oidc_client_id and not settings.oidc_audience):
        return None
    if not settings.oidc_audience:
        raise ParamsError("FINSIGHT_OIDC_AUDIENCE: unset; without it a token for any other service of the issuer would be taken")
    from finsight.adapters.oidc import OidcIssuer

    return OidcIssuer(name, claims_of(settings))


def issuer_of(settings: Settings) -> str | None:
    """The issuer's address; None where none is set.

    :raises ParamsError: when its keys would come over an open network.
    """
    if not settings.oidc_issuer:
        return None
    address = urlsplit(settings.oidc_issuer)
    if not address.hostname or not (address.scheme == "https" or (address.scheme == "http" and loopback(address.hostname))):
        raise ParamsError(f"FINSIGHT_OIDC_ISSUER: got {settings.oidc_issuer!r}; expected https://…")
    return settings.oidc_issuer


def claims_of(settings: Settings) -> Claims:
    """What to look for in the issuer's tokens."""
    from finsight.adapters.oidc import Claims

    return Claims(settings.oidc_audience or "", settings.oidc_roles_claim, settings.oidc_tenant_claim, settings.oidc_tenant)
