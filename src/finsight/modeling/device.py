"""Where to compute, and in which number format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from finsight.errors import ParamsError

# AMX tiles multiply bf16. AVX-512 BF16 alone does not pay: measured at 0.55 of the fp32 rate on a 1024×384×1536 product.
CPUINFO = Path("/proc/cpuinfo")


def resolve_device(wanted: str) -> torch.device:
    """``auto`` is CUDA where there is a GPU, else the CPU.

    :raises ParamsError: when CUDA is asked for and absent.
    """
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ParamsError("train.device: got cuda, but torch sees no GPU; set it to auto or cpu, or install a CUDA build of torch")
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


def resolve_precision(wanted: str, device: torch.device) -> torch.dtype:
    """``auto`` is bf16 where the hardware multiplies it natively, else fp32."""
    if wanted == "fp32":
        return torch.float32
    if wanted == "bf16" or (device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)):
        return torch.bfloat16
    native = device.type == "cpu" and CPUINFO.exists() and "amx_bf16" in CPUINFO.read_text().split()
    return torch.bfloat16 if native else torch.float32


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Seed torch and ask for deterministic kernels: equal bytes from run to run on one CPU type with one number of threads."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
