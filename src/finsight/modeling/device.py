"""Where to compute, and in which number format."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from finsight.errors import ParamsError
from finsight.files import write_json

# AMX tiles multiply bf16. AVX-512 BF16 alone does not pay: measured at 0.55 of the fp32 rate on a 1024×384×1536 product.
CPUINFO = Path("/proc/cpuinfo")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Hardware:
    """Where to compute, and in which number format the matrix products are; weights are fp32."""

    device: torch.device
    dtype: torch.dtype = torch.float32

    def autocast(self) -> torch.autocast:
        """A context for a forward pass."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)


def resolve_device(wanted: str) -> torch.device:
    """``auto`` is CUDA where there is a GPU, else the CPU.

    :raises ParamsError: when CUDA is asked for and absent.
    """
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ParamsError("train.device: got cuda, but torch sees no GPU; set it to auto or cpu, or install a CUDA build of torch")
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


def resolve_precision(wanted: str, device: torch.device, cache: Path | None = None) -> torch.dtype:
    """``auto`` is bf16 where that is faster, else fp32.

    :param cache: folder in which the answer of this CPU is kept once it has been timed; None asks its flags instead, so that the answer
        depends on the CPU's type alone.
    """
    if wanted != "auto":
        return DTYPES[wanted]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if cache is not None:
        return torch.bfloat16 if _bf16_pays(cache) else torch.float32
    native = CPUINFO.exists() and "amx_bf16" in CPUINFO.read_text().split()
    return torch.bfloat16 if native else torch.float32


def _bf16_pays(cache: Path) -> bool:
    """Whether a matrix product of a step is faster in bf16 on this CPU with this torch; timed once."""
    about = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    cpu = sorted({line for line in about if line.startswith(("model name", "flags"))})
    key = hashlib.sha256(repr((cpu, torch.__version__, torch.get_num_threads())).encode()).hexdigest()[:16]
    path = cache / f"precision-{key}.json"
    try:
        return bool(json.loads(path.read_text())["bf16_over_fp32"] > 1)
    except (OSError, ValueError, KeyError):
        pass
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.ones(1024, 384, dtype=dtype), torch.ones(1536, 384, dtype=dtype)
        taken = []
        for _ in range(12):
            started = time.perf_counter()
            torch.nn.functional.linear(a, b)
            taken.append(time.perf_counter() - started)
        seconds[dtype] = min(taken)
    ratio = seconds[torch.float32] / seconds[torch.bfloat16]
    write_json(path, {"bf16_over_fp32": round(ratio, 3)})
    return ratio > 1


@contextmanager
def deterministic(seed: int, threads: int = 0, strict: bool = True) -> Iterator[None]:
    """Seed torch, fix its number of threads, and ask for deterministic kernels: equal bytes from run to run on one CPU type.

    :param threads: 0 leaves the number as it is.
    :param strict: whether kernels whose sums depend on chance are avoided; where a GPU has no other, torch warns.
    """
    if strict:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may take another buffer, and another sum
    before, had = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    torch.manual_seed(seed)
    torch.set_num_threads(threads or had)
    torch.use_deterministic_algorithms(strict, warn_only=True)
    # Or every new tensor is filled with NaN before it is written, which took a twentieth of a step; we read none that was not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.set_num_threads(had)
