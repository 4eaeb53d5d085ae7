"""Whether the settings can be, and go together. No value of a secret is shown."""

from __future__ import annotations

import difflib
import os
from urllib.parse import urlsplit

from finsight import tracing
from finsight.bootstrap.credentials import issuer_of, ways_in
from finsight.bootstrap.service import windows
from finsight.bootstrap.sign_in import public_url
from finsight.domain.diagnosis import AdviceError
from finsight.errors import FinsightError, ParamsError
from finsight.settings import SECRETS, Settings, load_settings

# Read where they are used, since that comes before the settings, or is a process that a job started.
_OTHERS = ("CACHE", "FORMAT", "EVENTS", "CORRELATION_ID", "FUZZ", "UPDATE_DOCS", "PHRASEBANK", "TWITTER")


def settings() -> str:
    """Every variable is one of ours, each has a value that can be, and none contradicts another.

    :raises FinsightError: at the first that is wrong; an AdviceError only where none is.
    """
    unknown()
    found, advice = load_settings(), list[AdviceError]()
    for check in (ways, limits, issuer, signatures, storage, traces):
        try:
            check(found)
        except AdviceError as error:
            advice.append(error)
    if advice:
        raise advice[0]
    given = sorted(name for name in os.environ if name.startswith("FINSIGHT_"))
    return ", ".join(name.removeprefix("FINSIGHT_").lower() for name in given) or "all as embedded"


def unknown() -> None:
    """A variable with a typing error says nothing, and its setting stays as it was."""
    named = (*Settings.model_fields, *(f"{name}_FILE" for name in SECRETS), *_OTHERS)
    known = {f"FINSIGHT_{name.upper()}" for name in named}
    for name in sorted(os.environ):
        if name.startswith("FINSIGHT_") and name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise ParamsError(f"{name}: no such setting" + (f"; is {near[0]} meant?" if near else "; unset it"))


def ways(found: Settings) -> None:
    """Who is let in."""
    open_ways = ways_in(found, "127.0.0.1")
    if "oidc" not in open_ways and (found.oidc_issuer or found.oidc_client_id):
        raise ParamsError("FINSIGHT_AUTH: has no oidc, while FINSIGHT_OIDC_ISSUER or _CLIENT_ID is set; add oidc, or unset these")
    if found.redis_url and urlsplit(found.redis_url.get_secret_value()).scheme not in ("redis", "rediss", "unix"):
        raise ParamsError("FINSIGHT_REDIS_URL: expected redis://, rediss:// or unix:// and an address")
    if not open_ways:
        raise AdviceError("FINSIGHT_AUTH=off: everybody at this machine is admin, and the service listens nowhere else")
    if found.api_key is None:
        raise AdviceError("FINSIGHT_API_KEY: unset, so that each start makes another; set one for more than a try")


def limits(found: Settings) -> None:
    """How often, and how much."""
    windows(found)
    if found.max_upload < found.max_body:
        raise ParamsError(
            f"FINSIGHT_MAX_UPLOAD: {found.max_upload} is less than FINSIGHT_MAX_BODY, {found.max_body}; raise it, or lower that"
        )
    if found.objects_size < found.max_upload:
        raise ParamsError(
            f"FINSIGHT_OBJECTS_SIZE: {found.objects_size} is less than FINSIGHT_MAX_UPLOAD, {found.max_upload}: an upload would not be kept"
        )


def issuer(found: Settings) -> None:
    """Signing in, and an issuer's tokens."""
    named, page = issuer_of(found), public_url(found)
    if found.oidc_client_secret and not found.oidc_client_id:
        raise ParamsError("FINSIGHT_OIDC_CLIENT_SECRET: set without FINSIGHT_OIDC_CLIENT_ID; set that too")
    if found.oidc_client_id and not (named and page):
        raise ParamsError(
            "FINSIGHT_OIDC_CLIENT_ID: needs FINSIGHT_OIDC_ISSUER and FINSIGHT_PUBLIC_URL to sign people in; set them, or unset it"
        )
    if named and not (found.oidc_audience or found.oidc_client_id):
        raise ParamsError("FINSIGHT_OIDC_ISSUER: needs FINSIGHT_OIDC_AUDIENCE for tokens, or FINSIGHT_OIDC_CLIENT_ID for the page; set one")


def signatures(found: Settings) -> None:
    """Keys that sign and encrypt."""
    from finsight.adapters.sealing import Seal
    from finsight.bootstrap.signing import signer

    if found.signing_password and not found.signing_key:
        raise ParamsError("FINSIGHT_SIGNING_PASSWORD: set without FINSIGHT_SIGNING_KEY; set that too")
    if found.require_signature == "release" and not (found.trusted_keys or found.signing_key):
        raise ParamsError("FINSIGHT_REQUIRE_SIGNATURE=release: no key counts; name public keys in FINSIGHT_TRUSTED_KEYS")
    signer(signs=bool(found.signing_key), development=False)
    if found.encryption_key:
        Seal(found.encryption_key.get_secret_value())


def storage(found: Settings) -> None:
    """Where inputs and results lie."""
    if found.objects and not found.objects.startswith("s3://"):
        raise ParamsError(f"FINSIGHT_OBJECTS: got {found.objects!r}; expected s3://bucket/prefix, or nothing for a folder of this clone")
    if found.redis_url and not found.objects:
        raise AdviceError("FINSIGHT_REDIS_URL is set and FINSIGHT_OBJECTS is not: tables are shared within one clone alone")


def traces(_: Settings) -> None:
    """Where traces go."""
    given = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or ""
    if tracing.wanted() and not given.startswith(("http://", "https://")):
        raise FinsightError("OTEL_EXPORTER_OTLP_ENDPOINT: expected http://host:4318 of an OTLP receiver over HTTP; gRPC is not spoken")
