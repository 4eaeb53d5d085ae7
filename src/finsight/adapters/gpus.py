"""The GPUs of this machine."""

from __future__ import annotations

import os
import subprocess


def gpus() -> list[str]:
    """Their UUIDs, as CUDA_VISIBLE_DEVICES takes them, of those that this process may use; none where there is no driver."""
    asked = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    found = [tuple(map(str.strip, line.split(","))) for line in done.stdout.splitlines() if done.returncode == 0 and line.count(",") == 1]
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    named = [name.strip() for name in wanted.split(",")] if wanted is not None else [index for index, _ in found]
    return [uuid for index, uuid in found if index in named or any(name and uuid.startswith(name) for name in named)]
