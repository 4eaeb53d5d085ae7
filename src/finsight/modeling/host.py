"""On what a model was computed: packages, processor, GPU and its driver. For the record, and to say what differs when it is made again."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import distributions
from typing import Any

import torch

from finsight.modeling.device import CPUINFO


def describe() -> dict[str, Any]:
    """``packages`` (name → version), ``python``, ``system``, ``cpu``, ``cores``, and where there is one ``gpu``, ``driver``, ``cuda``."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
    }
    if torch.cuda.is_available():
        found |= {"gpu": torch.cuda.get_device_name(), "driver": _driver(), "cuda": torch.version.cuda}
    return found | {"packages": {d.name: d.version for d in sorted(distributions(), key=lambda d: d.name.lower())}}


def _cpu() -> str:
    """The processor's model, and by which vector instructions its results may differ from another's."""
    if not CPUINFO.exists():
        return platform.processor() or platform.machine()
    lines = dict(line.split(":", 1) for line in CPUINFO.read_text(encoding="utf-8").splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in lines.items()}
    telling = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile") if flag in fields.get("flags", "").split()]
    return " ".join([fields.get("model name", platform.machine()), *telling])


def _driver() -> str | None:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError):
        return None  # the GPU computes without it
