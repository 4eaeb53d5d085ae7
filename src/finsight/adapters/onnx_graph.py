"""A graph of a bundle on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finsight.errors import ArtifactError

Run = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
"""Token ids and attention mask, both (b, longest) → logits (b, k). May be called from several threads at a time."""


GPU_WHEEL = "onnxruntime-gpu"


def installed() -> tuple[str, str] | None:
    """The wheel that ONNX Runtime comes from and its version: two have the same module, one of them computes on GPUs, too."""
    for wheel in ("onnxruntime", GPU_WHEEL):
        try:
            return wheel, version(wheel)
        except PackageNotFoundError:
            continue
    return None


def load(path: Path, _: str, threads: int, at_once: int) -> Run:
    """Open a graph.

    :param _: the precision, which the graph says too: ONNX Runtime computes as it is written.
    :param threads: cores that may be used in all.
    :param at_once: calls that will run at the same time; the cores are divided among them.
    :raises ArtifactError: when ONNX Runtime can't read the file.
    """
    return opened(path, max(1, threads // at_once), "CPUExecutionProvider")


def opened(path: Path, threads: int, provider: str, **provided: str) -> Run:
    """Open a graph on one of ONNX Runtime's providers.

    :param threads: cores that one call may use.
    :param provided: the provider's own options.
    :raises ArtifactError: when ONNX Runtime can't read the file, or the provider can't begin.
    """
    try:
        import onnxruntime as ort
    except ImportError:
        raise ArtifactError("ONNX Runtime is not installed: `pip install onnxruntime`, or choose an openvino-… format") from None
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = threads
    # A thread that waits for work by spinning is some per cent faster where no other process wants the core, and slower by orders of
    # magnitude where one does.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with _one_line(path, "read", "; export again"):
        session = ort.InferenceSession(str(path), options, providers=[(provider, provided)])
    if provider not in session.get_providers():  # it goes on without one that it can't load, on the processor
        raise ArtifactError(f"{path}: ONNX Runtime can't begin {provider} here; see that CUDA and cuDNN of its version are installed")
    session.disable_fallback()  # it would go on on the processor after a failure of the GPU, too

    def run(tokens: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        with _one_line(path, "compute"):
            logits: NDArray[np.float32] = session.run(["logits"], {"input_ids": tokens, "attention_mask": mask})[0]
            return logits

    return run


@contextmanager
def _one_line(path: Path, what: str, remedy: str = "") -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001  (ONNX Runtime's own classes have no common base but this)
        raise ArtifactError(f"{path}: ONNX Runtime can't {what} it: {' '.join(str(error).split())[:200]}{remedy}") from None


def runs_here(_: str) -> bool:
    """Whether ONNX Runtime is installed; it has kernels for all precisions on all processors."""
    return find_spec("onnxruntime") is not None
