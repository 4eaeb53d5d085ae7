"""Whether the systems that the settings name answer, and what lies in the clone. Each check is as those of the machine."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

from finsight.bootstrap.credentials import issuer_of
from finsight.domain.diagnosis import AdviceError
from finsight.errors import FinsightError
from finsight.settings import Settings, load_settings, project_root

APART, TOO_FAR = 5.0, 30.0  # seconds between two clocks: tokens and signatures of S3 are refused beyond


def git() -> str:
    """The clone, and what in it is not committed."""
    from finsight.adapters import git

    root = project_root()
    try:
        revision = git.revision(root)
    except FileNotFoundError:
        raise FinsightError("git is not on PATH; install it: experiments and lineage need it") from None
    if changed := git.uncommitted(root):
        raise AdviceError(f"{', '.join(changed[:3])}: changed and not committed; jobs of the service are refused until it is")
    return f"at {revision[:12]}, all committed"


def dvc_remote() -> str:
    """The default remote of .dvc/config: whether it answers, and takes our key."""
    command = [sys.executable, "-m", "dvc", "config", "core.remote"]
    done = subprocess.run(command, cwd=project_root(), capture_output=True, text=True, timeout=60)
    name = done.stdout.strip()
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise FinsightError(f".dvc/config can't be read: {said[0].removeprefix('ERROR: ')[:200]}; mend it, no stage runs without it")
    if not name:
        raise AdviceError("no default remote; `dvc remote default NAME` lets `dvc push` and `dvc pull` know where to")
    from finsight.adapters.remotes import opened

    with opened(name) as repo:
        where = repo.cloud.get_remote(name)
        if where.fs.protocol == "local":
            from finsight.adapters.dependencies import folder_takes

            folder_takes(Path(where.path))
    return f"{name} answers"


def mlflow() -> str:
    """MLflow, as whoever the environment says that we are."""
    from finsight.adapters.dependencies import mlflow_answers

    return mlflow_answers(load_settings().tracking_uri())


def redis() -> str:
    """The service's Redis, or what its own is run with."""
    from finsight.adapters.dependencies import redis_answers
    from finsight.adapters.redis_server import executable

    given = load_settings().redis_url
    return redis_answers(given.get_secret_value()) if given else f"its own, by {Path(executable()).name}"


def objects() -> str:
    """The bucket of scorings, and the key for it."""
    from finsight.adapters.dependencies import bucket_answers

    settings = load_settings()
    if not settings.objects:
        return "tables lie in the clone; FINSIGHT_OBJECTS names a bucket"
    return bucket_answers(settings.objects, settings.s3_endpoint)


def issuer() -> str:
    """The OpenID Connect issuer's discovery document."""
    from finsight.adapters.oidc import OidcIssuer
    from finsight.bootstrap.credentials import claims_of

    settings = load_settings()
    name = issuer_of(settings)
    if name is None:
        return "none set"
    return f"{OidcIssuer(name, claims_of(settings)).about()['issuer']} answers"


def bundle() -> str:
    """What would be served: whether it is whole."""
    from finsight.bundle import MANIFEST, bundle_digest, read_bundle

    folder = project_root() / "models/bundle"
    if not (folder / MANIFEST).is_file():
        raise AdviceError(
            "models/bundle is not there; `dvc repro` makes it, `dvc pull` fetches it, or serve one of the registry: --bundle models:/…"
        )
    return f"{', '.join(read_bundle(folder).graphs)}, digest {bundle_digest(folder)[:12]}"


def clock() -> str:
    """This machine's, beside those of the servers that the settings name."""
    found = dict(_clocks(load_settings()))
    if not found:
        return "nothing to compare it with"
    where, apart = max(found.items(), key=lambda item: abs(item[1]))
    if abs(apart) > APART:
        said = f"{abs(apart):.0f} s {'behind' if apart > 0 else 'before'} that of {where}; set it by NTP (`timedatectl set-ntp true`)"
        raise FinsightError(said) if abs(apart) > TOO_FAR else AdviceError(said)
    return f"within {APART:.0f} s of {', '.join(found)}"


def _clocks(settings: Settings) -> Iterator[tuple[str, float]]:
    """Servers that say what time it is, each with how many seconds it is ahead of us; those that are away are another check's."""
    import requests
    from redis import Redis, RedisError

    if settings.redis_url:
        try:
            with Redis.from_url(settings.redis_url.get_secret_value(), socket_timeout=3, socket_connect_timeout=3) as client:
                seconds, micros = client.time()
                yield "Redis", seconds + micros / 1e6 - time.time()
        except (RedisError, ValueError):
            pass
    for name, url in (("MLflow", settings.mlflow_uri), ("S3", settings.s3_endpoint), ("the issuer", settings.oidc_issuer)):
        if url and url.startswith("http"):
            try:
                said = requests.head(url, timeout=3, allow_redirects=False).headers.get("Date")
            except requests.RequestException:
                continue
            if said:
                yield name, parsedate_to_datetime(said).timestamp() + 0.5 - time.time()  # it says whole seconds
