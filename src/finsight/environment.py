"""What is read from the environment before anything heavy is imported; the standard library alone, as a small serving image has it."""

from __future__ import annotations

import os
from pathlib import Path

# Each of these libraries reports usage unless told not to; docs/privacy.md lists them.
_QUIET = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # The hub is asked only by adapters/hub.py, and only for a backbone that params.yaml names or a corpus that is being added.
    "HF_HUB_OFFLINE": "1",
    # Forked tokenizer threads warn on every subprocess otherwise.
    "TOKENIZERS_PARALLELISM": "true",
}


def quiet() -> None:
    """Switch off usage statistics and silent downloads of the libraries we call; what the user has set stays."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


def cache_folder() -> Path:
    """Where what every clone of this user shares is kept: ``FINSIGHT_CACHE``, or ``finsight`` in the user's cache."""
    named = os.environ.get("FINSIGHT_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "finsight"


def wanted_format() -> str | None:
    """The format that ``FINSIGHT_FORMAT`` pins; None where it is unset or ``fastest``."""
    named = os.environ.get("FINSIGHT_FORMAT", "fastest")
    return None if named in ("", "fastest") else named


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
