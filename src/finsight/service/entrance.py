"""Who is let in, and what they are held to, as the settings say."""

from __future__ import annotations

import secrets

from finsight.bootstrap.credentials import credential_stores, token_issuer, ways_in
from finsight.bootstrap.released import model_name
from finsight.bootstrap.service import audit_log, windows
from finsight.errors import ParamsError
from finsight.service.access import Gate
from finsight.service.gate import CredentialGate, Credentialing
from finsight.service.plain_gates import OneKey, OpenGate
from finsight.service.policy_file import DEFAULT, PolicyFile
from finsight.service.rules import Limits, Rules
from finsight.service.tokens import LEEWAY, LIFETIME, Tokens
from finsight.settings import Settings

SHORTEST = 15  # characters of the admin's own key: it has no second factor, and nothing that slows its digest down


def entrance(settings: Settings, host: str, redis_url: str) -> tuple[Gate, Credentialing, str | None]:
    """The gate, the makers of credentials, and the admin's key where it was made for this run because none is set.

    :param host: where the service is going to listen.
    :raises ParamsError: when a setting can't be, or would leave a public address open.
    :raises FinsightError: when Redis does not answer, or keeps a signing key that can't be decrypted: better now than at a request.
    """
    ways = ways_in(settings, host)
    issuer = token_issuer(settings, ways)
    stores = credential_stores(redis_url, settings, LIFETIME + LEEWAY)
    tokens = Tokens(stores.keys, stores.signing) if "token" in ways else None
    if tokens:
        stores.signing.current()
    own = Credentialing(stores.keys, stores.tickets, stores.failures, tokens)
    if not ways:
        return OpenGate(), own, None
    given = admins_key(settings)
    key = given or secrets.token_urlsafe(24)
    return CredentialGate(own, OneKey(key), "key" in ways, issuer), own, None if given else key


def admins_key(settings: Settings) -> str:
    """FINSIGHT_API_KEY; empty where it is unset.

    :raises ParamsError: when it could be guessed, or a header can't carry it. The message does not show it.
    """
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    if key and (len(key) < SHORTEST or not key.isascii() or not key.isprintable() or " " in key):
        raise ParamsError(
            f"FINSIGHT_API_KEY: expected {SHORTEST} letters, digits and signs of ASCII or more, without blanks; "
            '`python -c "import secrets; print(secrets.token_urlsafe(24))"` makes one'
        )
    return key


def house_rules(settings: Settings, redis: str) -> Rules:
    """The rules of the settings.

    :param redis: address of what the replicas share.
    :raises ParamsError: when the policy, the limits or the encryption key are wrong.
    """
    return Rules(
        PolicyFile(settings.policy or DEFAULT),
        Limits(windows(settings, redis), windows(settings)),
        audit_log(settings, redis),
        settings.environment,
        settings.max_body,
        settings.max_at_once,
        model_name,
    )
