"""What is read from the environment before anything heavy is imported; the standard library alone, as a small serving image has it."""

from __future__ import annotations

import math
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


def cores(root: Path = Path("/")) -> int:
    """Cores that this process may use: those that it may run on, and no more than :func:`quota` is worth."""
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = quota(root)
    return free if most is None else max(1, min(free, math.ceil(most)))


def quota(root: Path = Path("/")) -> float | None:
    """Cores' worth of time that its control groups give this process, as ``docker run --cpus`` has it; None where they set no limit.

    :param root: of the file system.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return None
    found = list[float]()
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if not controllers or "cpu" in controllers.split(","):
            tree = root / "sys/fs/cgroup" / controllers  # of version 2 there is one tree, which has no name
            group = tree / path.lstrip("/")  # not there where a container sees its own group as the root of all
            found += [share for folder in (group, *group.parents) if folder.is_relative_to(tree) for share in _share(folder, controllers)]
    return min(found, default=None)


def _share(group: Path, controllers: str) -> list[float]:
    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
    try:
        most, period = map(int, " ".join((group / name).read_text(encoding="utf-8") for name in names).split())
    except (OSError, ValueError):  # it says nothing, or max
        return []
    return [most / period] if most > 0 and period > 0 else []
