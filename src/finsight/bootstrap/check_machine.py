"""Whether a machine can run the pipeline and the service. Each check answers in a few words, or raises.

An AdviceError is of what works, though not as well as it could; any other FinsightError of what will not.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from finsight.domain.diagnosis import AdviceError
from finsight.environment import cache_folder, cores, quota
from finsight.errors import FinsightError
from finsight.settings import project_root

OLDEST, NEWEST = (3, 11), (3, 13)
GB = 10**9
_CGROUP = Path("/sys/fs/cgroup")
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def python() -> str:
    """Its version."""
    found = platform.python_version()
    if sys.version_info[:2] < OLDEST:
        raise FinsightError(f"{found} is too old; make an environment with Python 3.11 or later: `make PYTHON=python3.11 setup`")
    if sys.version_info[:2] > NEWEST:
        raise AdviceError(f"{found} is newer than any that is tested (3.{NEWEST[1]}); packages may lack")
    return found


def packages() -> str:
    """Those that are needed, and whether they are the pinned ones."""
    named = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in requires("finsight") or [] if ";" not in line]
    if lacking := [name for name in named if _version(name) is None]:
        raise FinsightError(f"{_some(lacking)} not installed; `make setup` installs what is pinned")
    pinned = project_root() / "constraints.txt"
    if not pinned.is_file():
        return f"{len(named)} needed ones are there"
    wanted = (line.partition(";")[0].strip().partition("==") for line in pinned.read_text(encoding="utf-8").splitlines() if "==" in line)
    # A local part (+cpu, +cu130) says how it was built.
    other = [f"{name} {found} for {pin}" for name, _, pin in wanted if (found := _version(name)) and found.partition("+")[0] != pin]
    if other:
        raise AdviceError(f"{_some(other)} in constraints.txt; `python -m pip install -c constraints.txt -e .` takes what is tested")
    return f"{len(named)} needed ones as constraints.txt pins them"


def processor() -> str:
    """Cores and the units that models are computed on."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(re.findall(r"\w+", cpuinfo.read_text(encoding="utf-8"))) if cpuinfo.is_file() else set()
    found = " ".join([f"{cores()} cores", platform.machine(), *(flag for flag in _FLAGS if flag in flags)])
    most, counted = quota(), os.cpu_count() or 1
    if most is not None and most < counted:
        raise AdviceError(f"{found}: the time of {most:g}, of {counted} that libraries count; set OMP_NUM_THREADS={cores()}")
    if platform.machine() == "x86_64" and flags and "avx2" not in flags:
        raise AdviceError(f"{found}: no AVX2, so 8-bit formats are slow here; `finsight fastest` finds the best one")
    return found


def gpu() -> str:
    """GPUs, and whether the installed torch can use them."""
    from finsight.adapters.dependencies import gpu_answers

    found, torch = gpu_answers(), _version("torch") or ""
    if found != "none" and torch.endswith("+cpu"):
        raise AdviceError(f"{found}, but torch {torch} has no CUDA; install a CUDA build of torch to train there")
    return found if found != "none" else "none; training runs on the processor"


def memory() -> str:
    """What is left of it, for this container where there is one."""
    free = _available()
    if free is None:
        return "unknown on this system"
    if free < 0.5 * GB:
        raise FinsightError(f"{free / GB:.1f} GB free: too little to serve a bundle; end something, or take a larger machine")
    if free < 2 * GB:
        raise AdviceError(f"{free / GB:.1f} GB free: enough to serve, while training takes about 2 GB")
    return f"{free / GB:.1f} GB free"


def disk() -> str:
    """What is left of the disks that the clone, the cache and temporary files lie on."""
    from finsight.adapters.dependencies import disk_has

    places = (project_root(), cache_folder(), Path(tempfile.gettempdir()))
    disk_has(places, GB)
    try:
        return disk_has(places, 5 * GB)
    except FinsightError as error:
        raise AdviceError(str(error)) from None


def folders() -> str:
    """Whether what has to be written can be."""
    from finsight.adapters.dependencies import folder_takes

    root = project_root()
    inner = (root / name for name in (".", ".service", ".dvc/tmp", "data", "models", "reports"))
    for folder in (*inner, cache_folder(), Path(tempfile.gettempdir())):
        folder_takes(folder)
    return f"{root}, the cache and TMPDIR are writable"


def _version(name: str) -> str | None:
    from finsight.adapters.onnx_graph import installed

    if name == "onnxruntime":
        return found[1] if (found := installed()) else None
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _some(words: list[str]) -> str:
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")


def _available() -> int | None:
    """Bytes."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    try:
        limit, used = ((_CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return free
    return min(free, int(limit) - int(used)) if limit != "max" else free
