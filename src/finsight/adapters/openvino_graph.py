"""A graph of a bundle on OpenVINO, which reads the same ONNX files."""

from __future__ import annotations

import sys
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finsight.adapters.onnx_graph import Run
from finsight.errors import ArtifactError

INSTALL = "pip install openvino"


@cache
def _core() -> Any:
    # Importing the package imports its converter, which reports that to a server whatever DO_NOT_TRACK says; where the reporter can't be
    # imported it goes on without.
    reporter = "openvino_telemetry"
    kept = sys.modules.get(reporter)
    sys.modules[reporter] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError:
        raise ArtifactError(f"OpenVINO is not installed: `{INSTALL}`, or choose an onnx-… format") from None
    finally:
        del sys.modules[reporter]
        if kept:
            sys.modules[reporter] = kept
    return openvino.Core()


def load(path: Path, precision: str, threads: int, at_once: int) -> Run:
    """Open a graph; the parameters are those of :func:`finsight.adapters.onnx_graph.load`.

    :param precision: ``bf16`` computes matrix products in bfloat16 where the processor has it.
    :raises ArtifactError: when OpenVINO is not installed or can't read the file.
    """
    core = _core()
    options = {
        "PERFORMANCE_HINT": "LATENCY" if at_once == 1 else "THROUGHPUT",
        "INFERENCE_NUM_THREADS": str(threads),
        "NUM_STREAMS": str(at_once),
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
    }
    try:
        compiled = core.compile_model(core.read_model(path), "CPU", options)
    except RuntimeError as error:
        raise ArtifactError(f"{path}: OpenVINO can't read it: {' '.join(str(error).split())[:200]}; export again") from None
    own = threading.local()  # a request serves one call at a time

    def run(tokens: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        try:
            found = own.request.infer({"input_ids": tokens, "attention_mask": mask}, share_inputs=True)
        except RuntimeError as error:
            raise ArtifactError(f"{path}: OpenVINO can't compute it: {' '.join(str(error).split())[:200]}") from None
        return np.array(found["logits"], dtype=np.float32)

    return run


def runs_here(precision: str) -> bool:
    """Whether OpenVINO is installed and this processor computes in a precision: without bfloat16 it would quietly be fp32."""
    try:
        return precision != "bf16" or "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except ArtifactError:
        return False
