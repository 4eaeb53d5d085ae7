"""The GPUs of this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass


def gpus() -> list[str]:
    """Their UUIDs, as CUDA_VISIBLE_DEVICES takes them, of those that this process may use; none where there is no driver."""
    found = _asked(("index", "uuid"), 20)
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    named = [name.strip() for name in wanted.split(",")] if wanted is not None else [index for index, _ in found]
    return [uuid for index, uuid in found if index in named or any(name and uuid.startswith(name) for name in named)]


@dataclass(frozen=True, slots=True)
class GpuUse:
    """What a GPU does now; None where it does not say.

    :param busy: share of the last moment in which something was computed, 0 to 1.
    :param memory_used: bytes, as is ``memory_size``.
    :param power: watts.
    :param temperature: degrees Celsius.
    """

    uuid: str
    busy: float | None
    memory_used: float | None
    memory_size: float | None
    power: float | None
    temperature: float | None


def gpu_use(seconds: float = 5.0) -> list[GpuUse]:
    """What each GPU of this machine does; none where there is none, or the driver does not answer in time."""
    found = []
    fields = ("uuid", "utilization.gpu", "memory.used", "memory.total", "power.draw", "temperature.gpu")
    for uuid, *said in _asked(fields, seconds):
        units = (0.01, 2**20, 2**20, 1, 1)  # it speaks of percent and mebibytes
        found.append(GpuUse(uuid, *(_number(word, unit) for word, unit in zip(said, units, strict=True))))
    return found


def _number(said: str, unit: float) -> float | None:
    """A card says [N/A] of what it does not measure."""
    try:
        return float(said) * unit
    except ValueError:
        return None


_hanging: list[subprocess.Popen[str]] = []
"""Processes that a driver holds: they don't even end when they are killed, and nobody is to wait for that, nor to add to them."""


def _asked(fields: Sequence[str], seconds: float) -> list[tuple[str, ...]]:
    _hanging[:] = [process for process in _hanging if process.poll() is None]
    if _hanging:
        return []
    asked = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        process = subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:
        return []
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        _left(process)
        return []
    lines = said.splitlines() if process.returncode == 0 else []
    return [tuple(map(str.strip, line.split(","))) for line in lines if line.count(",") == len(fields) - 1]


def _left(process: subprocess.Popen[str]) -> None:
    """End a process, if that can be done at once."""
    process.kill()
    if process.stdout:
        process.stdout.close()
    try:
        process.wait(1)
    except subprocess.TimeoutExpired:
        _hanging.append(process)
