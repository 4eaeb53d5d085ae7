"""A graph of a bundle on a GPU, by ONNX Runtime's provider for CUDA."""

from __future__ import annotations

from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path

from finsight.adapters.gpus import gpus
from finsight.adapters.onnx_graph import Run, opened

_PROVIDER = "CUDAExecutionProvider"


def load(path: Path, _: str, threads: int, at_once: int) -> Run:
    """Open a graph on the first GPU that this process may use; the parameters are those of :func:`finsight.adapters.onnx_graph.load`.

    Products of fp32 are computed in fp32: TF32, which ONNX Runtime has by default, keeps ten bits of each factor.

    :raises ArtifactError: when ONNX Runtime can't read the file, or CUDA or cuDNN are not what it was built for.
    """
    import onnxruntime as ort

    ort.set_default_logger_severity(4)  # what it misses is told in one line of ours
    with redirect_stdout(StringIO()):
        ort.preload_dlls()  # CUDA and cuDNN where pip has put them, if it has
    return opened(path, max(1, threads // at_once), _PROVIDER, use_tf32="0")


@cache
def runs_here(_: str) -> bool:
    """Whether there is a GPU, and an ONNX Runtime that was built for one."""
    try:
        import onnxruntime as ort
    except ImportError:
        return False
    return _PROVIDER in ort.get_available_providers() and bool(gpus())
