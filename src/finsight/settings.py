"""What differs between machines and must not be in git: places, addresses, secrets. Read from the environment, and from the files that
it names for secrets.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from finsight.environment import cache_folder
from finsight.errors import ParamsError


def project_root(start: Path | None = None) -> Path:
    """The root of the user's clone: the nearest folder upwards that holds ``dvc.yaml``.

    Jobs, sweeps and ``dvc exp run --temp`` work in copies below ``.dvc/tmp/``; the copy's owner is returned then, because the
    environment, the tracking database and the caches stand there.
    """
    here = (start or Path.cwd()).resolve()
    parts = here.parts
    for i in range(len(parts) - 1):
        if parts[i : i + 2] == (".dvc", "tmp"):
            return Path(*parts[:i])
    return next((p for p in (here, *here.parents) if (p / "dvc.yaml").is_file()), here)


class SecretFiles(PydanticBaseSettingsSource):
    """``FINSIGHT_API_KEY_FILE`` and its like: the file that a secret stands in, as container engines mount them."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The secret of one field; None where no file is named.

        :raises ParamsError: when the file can't be read or is empty, or the variable itself is set, too.
        """
        name = f"FINSIGHT_{field_name.upper()}"
        path = os.environ.get(f"{name}_FILE") if SecretStr in get_args(field.annotation) else None
        if not path:
            return None, field_name, False
        if os.environ.get(name):
            raise ParamsError(f"{name}_FILE: {name} is set, too; unset one of them")
        try:
            content = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeError) as error:
            raise ParamsError(f"{name}_FILE: {path} can't be read ({getattr(error, 'strerror', None) or 'no UTF-8'})") from None
        if not content:
            raise ParamsError(f"{name}_FILE: {path} is empty; write the secret into it, or unset the variable")
        return content, field_name, False

    def __call__(self) -> dict[str, Any]:
        """See :class:`pydantic_settings.PydanticBaseSettingsSource`."""
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


class Settings(BaseSettings):
    """Environment variables, each with its embedded default; of a secret also ``FINSIGHT_…_FILE``, which names a file with it."""

    model_config = SettingsConfigDict(env_prefix="FINSIGHT_", extra="ignore")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - there are none of either
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """See :class:`pydantic_settings.BaseSettings`."""
        return init_settings, SecretFiles(settings_cls), env_settings

    cache: Path = Field(default_factory=cache_folder)
    """Verified backbones and model versions; shared by every clone on the machine."""

    launch: str = ""
    """What of ``train.launch`` is otherwise on this machine, which DVC need not know: ``nodes=2,node_rank=1,rendezvous=first:29500``."""

    mlflow_uri: str | None = Field(default=None, validation_alias="MLFLOW_TRACKING_URI")
    """MLflow server or database; SQLite in the clone's root when unset."""

    s3_endpoint: str | None = Field(default=None, validation_alias="AWS_ENDPOINT_URL")
    """S3-compatible endpoint for ``s3://`` backbones and corpora; AWS when unset."""

    allow_private_urls: bool = False
    """Whether ``finsight corpus add URL`` may ask loopback, private and link-local addresses."""

    redis_url: SecretStr | None = None
    """Redis of the service, ``redis://``, ``rediss://`` or ``unix://``; one of its own over ``.service/redis`` when unset."""

    service_metrics: str = ""
    """Where the service shows its metrics without a credential, ``host:port``, beside ``/metrics``; nowhere when unset."""

    worker_metrics: str = "127.0.0.1:9109"
    """Where a worker shows its metrics, ``host:port``; nowhere when empty."""

    metrics_dir: Path | None = None
    """Folder of Prometheus' textfile collector, where each stage of the pipeline leaves a file of its metrics."""

    pushgateway: str = ""
    """Pushgateway that each stage sends its metrics to, ``http://host:9091``."""

    follow_seconds: float = Field(default=30.0, gt=0)
    """How often a service that was started with an alias (``models:/finsight@champion``) looks where that points now."""

    drain_seconds: float = Field(default=1.0, ge=0)
    """How long a service that is told to end (SIGTERM) still takes requests while ``/readyz`` says that it is not ready."""

    experiments_remote: str = ""
    """Git remote that workers push the experiments of jobs to; they stay in the worker's clone when unset."""

    job_seconds: float = Field(default=24 * 3600.0, gt=0)
    """Seconds that a job may take."""

    objects: str = ""
    """Where inputs and results of scorings are kept: ``s3://bucket/prefix``, or the folder ``.service/objects`` when unset."""

    objects_days: float = Field(default=30.0, gt=0)
    """Days until an input or a result of a scoring goes."""

    objects_size: int = Field(default=10 * 2**30, ge=1)
    """Bytes of inputs and results of one tenant; the oldest go first."""

    max_upload: int = Field(default=512 * 2**20, ge=1)
    """The largest upload to be scored, in bytes."""

    max_lines: int = Field(default=1_000_000, ge=1)
    """The most lines of one, its head among them."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What the service and its workers log; ``debug`` has each request."""

    log_format: Literal["auto", "json", "text"] = "auto"
    """``json``, a line each, or ``text`` for people; ``auto`` writes text to a terminal alone."""

    log_texts: bool = False
    """Whether logs and traces may show what clients sent, and what libraries' errors say of it."""

    api_key: SecretStr | None = None
    """The admin's own key; one is made at start and printed once when unset."""

    auth: str = "key,token,oidc"
    """Ways in beside the admin's key: API keys, the service's tokens, an issuer's (where one is set); or ``off``, on loopback alone."""

    trusted_proxies: str = ""
    """Networks of proxies whose X-Forwarded-For is believed, separated by commas."""

    oidc_issuer: str | None = None
    """OpenID Connect issuer whose bearer tokens are taken, spelt as its tokens do."""

    oidc_audience: str | None = None
    """This service's name at ``oidc_issuer``; tokens for others are refused."""

    oidc_roles_claim: str = "roles"
    """Claim with somebody's roles; a dotted path where it stands within others."""

    oidc_tenant_claim: str = "tenant"
    """Claim with somebody's tenant, likewise."""

    oidc_tenant: str = ""
    """Tenant of tokens that name none; they are refused when unset."""

    oidc_client_id: str = ""
    """The service's id at ``oidc_issuer``, for people who sign in to the page there; nobody can when unset."""

    oidc_client_secret: SecretStr | None = None
    """Its secret there; a public client has none, and PKCE alone."""

    oidc_scope: str = "openid"
    """What the page asks ``oidc_issuer`` for, separated by spaces; ``openid`` has to be among it."""

    public_url: str = ""
    """Where browsers reach the service, ``https://finsight.example``; for signing in at an issuer, and behind a proxy that ends TLS."""

    policy: Path | None = None
    """The file that says who may do what at the service; the one that the service brings when unset."""

    environment: str = "production"
    """Where the service runs, for the conditions of its policy."""

    limits: str = ""
    """Requests of one credential in a time, where they differ from finsight.adapters.windows: ``predict=50/second; *=10/minute``."""

    max_body: int = Field(default=32 * 2**20, ge=1)
    """The largest body of a request, in bytes: 256 texts of 10,000 characters fit, each character written as two escapes."""

    max_at_once: int = Field(default=512, ge=1)
    """Requests that one replica works on at once; beyond them it answers 503."""

    max_sockets: int = Field(default=512, ge=1)
    """WebSockets that one replica has open at once; beyond them it answers 503."""

    signing_key: SecretStr | None = None
    """Private key that bundles and their provenance are signed with: PEM, or the path of a PEM file; a development key when unset."""

    signing_password: SecretStr | None = None
    """What opens ``signing_key`` where it is encrypted."""

    trusted_keys: str = ""
    """Paths of public keys in PEM whose signatures count, separated as on PATH; that of ``signing_key`` always counts."""

    require_signature: Literal["off", "any", "release"] = "off"
    """What `predict`, `score`, `explain` and `serve` ask of a bundle: ``any`` signature that counts, or one of no development key."""

    encryption_key: SecretStr | None = None
    """An age identity (AGE-SECRET-KEY-1…) that encrypts what waits in the outbox, and the service's audit log; in the clear when unset."""

    def tracking_uri(self) -> str:
        """The MLflow address in use."""
        return self.mlflow_uri or f"sqlite:///{project_root() / 'mlflow.db'}"


SECRETS = tuple(name for name, field in Settings.model_fields.items() if SecretStr in get_args(field.annotation))
"""The settings that may stand in a file."""


def load_settings() -> Settings:
    """The settings of this process.

    :raises ParamsError: when a variable has a value that can't be.
    """
    try:
        return Settings()
    except ValidationError as invalid:
        first = invalid.errors()[0]
        name = str(first["loc"][0]).upper()
        raise ParamsError(f"FINSIGHT_{name.removeprefix('FINSIGHT_')}: got {first['input']!r}; {first['msg']}") from None
