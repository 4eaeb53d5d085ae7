"""A graph of a bundle on a GPU, by ONNX Runtime's provider for CUDA."""

from __future__ import annotations

from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path

from finsight.adapters.gpus import gpus
from finsight.adapters.onnx_graph import Run, opened
from finsight.environment import quiet

_PROVIDER = "CUDAExecutionProvider"
_WARNINGS, _FATAL = 2, 4  # ONNX Runtime's levels; the first is its default


def load(path: Path, _: str, threads: int, at_once: int) -> Run:
    """Open a graph on the first GPU that this process may use; the parameters are those of :func:`finsight.adapters.onnx_graph.load`.

    Products of fp32 are computed in fp32: TF32, which ONNX Runtime has by default, keeps ten bits of each factor.

    :raises ArtifactError: when ONNX Runtime can't read the file, or CUDA or cuDNN are not what it was built for.
    """
    import onnxruntime as ort

    ort.set_default_logger_severity(_FATAL)  # what it misses is told in one line of ours
    try:
        with redirect_stdout(StringIO()):
            ort.preload_dlls()  # CUDA and cuDNN where pip has put them, if it has
            return opened(path, max(1, threads // at_once), _PROVIDER, use_tf32="0")
    finally:
        ort.set_default_logger_severity(_WARNINGS)


@cache
def runs_here(_: str) -> bool:
    """Whether there is a GPU, and an ONNX Runtime that was built for one."""
    quiet()  # it reports usage from its first import on
    try:
        import onnxruntime as ort
    except ImportError:
        return False
    return _PROVIDER in ort.get_available_providers() and bool(gpus())
