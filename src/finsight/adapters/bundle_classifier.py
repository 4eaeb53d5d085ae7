"""A bundle as a classifier, on ONNX Runtime, of processors or GPUs, or OpenVINO: neither torch nor transformers is imported here."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from finsight.adapters import cuda_graph, onnx_graph, openvino_graph
from finsight.adapters.onnx_graph import Run
from finsight.bundle import Manifest, read_bundle
from finsight.environment import cores, quiet
from finsight.errors import ArtifactError
from finsight.modeling.batching import batches, collate

BATCH_TOKENS = 512  # what a layer makes of more leaves a core's cache
GPU_BATCH_TOKENS = 16_384  # with fewer a GPU waits for the next
GPU_AT_ONCE = 2  # batches: one is brought there while the other is computed, and more take up its memory
WINDOW = 1024  # texts that are sorted by length together
AHEAD = 2  # windows that are tokenised before they are computed
CORE_BYTES = 32 * 2**20  # of a graph: one text through less of it takes another core longer to wake up for than to compute

Batch = tuple[NDArray[np.int64], list[NDArray[np.int32]]]
"""Numbers of rows (b,), and the token ids of each."""

# The first word of a format is its runtime, the second the precision.
_RUNTIMES = {"onnx": onnx_graph, "openvino": openvino_graph, "cuda": cuda_graph}


def runs_here(name: str) -> bool:
    """Whether a format's runtime is installed and the processor has its precision."""
    runtime, _, precision = name.partition("-")
    return runtime in _RUNTIMES and _RUNTIMES[runtime].runs_here(precision)


def on_gpu(name: str) -> bool:
    """Whether a format is computed on a GPU."""
    return name.startswith("cuda-")


class BundleClassifier:
    """Scores with one format of a bundle, which is checked from end to end first.

    :param graph: a format of the bundle; its first when None.
    :param threads: cores to use; all that this process may by default.
    """

    def __init__(self, bundle: Path, graph: str | None = None, threads: int | None = None) -> None:
        quiet()  # ONNX Runtime reports usage from its first import on, and this class is used from Python directly too
        self.manifest: Manifest = read_bundle(bundle)
        """What the bundle says of itself."""
        self.format = graph or next(iter(self.manifest.graphs))
        if self.format not in self.manifest.graphs:
            raise ArtifactError(f"{bundle}: no format {self.format!r}; the bundle has {', '.join(self.manifest.graphs)}")
        if not runs_here(self.format):
            raise ArtifactError(f"{bundle}: {self.format} can't be computed here, for want of its runtime or of a processor with it")
        self._threads = min(threads or cores(), GPU_AT_ONCE if on_gpu(self.format) else sys.maxsize)
        self._path = bundle / self.manifest.graphs[self.format]
        self._tokenizer = Tokenizer.from_file(str(bundle / self.manifest.tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.manifest.max_length)
        self._open: dict[int, Run] = {}
        self._opening = threading.Lock()

    @property
    def labels(self) -> Sequence[str]:
        """See :class:`finsight.ports.Classifier`."""
        return self.manifest.labels

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See :class:`finsight.ports.Classifier`; divided by the bundle's temperature."""
        out = np.zeros((len(texts), len(self.labels)), dtype=np.float32)
        first = self._batches(texts[:WINDOW])
        if len(texts) <= WINDOW and len(first) <= 1:
            run = self._runner(1)
            for batch in first:
                self._fill(out, batch, run)
        else:
            self._many(texts, first, out, self._runner(self._threads))
        out /= np.float32(self.manifest.temperature)
        return out

    def _many(self, texts: Sequence[str], first: list[Batch], out: NDArray[np.float32], run: Run) -> None:
        """A batch a core at a time; a window of texts is tokenised while those before it are computed."""
        with ThreadPoolExecutor(self._threads) as pool:
            waiting: deque[list[Future[None]]] = deque()
            for start in range(0, len(texts), WINDOW):
                found = self._batches(texts[start : start + WINDOW]) if start else first
                waiting.append([pool.submit(self._fill, out[start:], batch, run) for batch in found])
                while len(waiting) > AHEAD:
                    _finish(waiting.popleft())
            while waiting:
                _finish(waiting.popleft())

    def _batches(self, texts: Sequence[str]) -> list[Batch]:
        ids = [np.asarray(e.ids, dtype=np.int32) for e in self._tokenizer.encode_batch_fast(list(texts))]
        lengths = np.array([len(row) for row in ids], dtype=np.int64)
        budget = GPU_BATCH_TOKENS if on_gpu(self.format) else BATCH_TOKENS
        return [(rows, [ids[i] for i in rows]) for rows in batches(lengths, budget)]

    def _fill(self, out: NDArray[np.float32], batch: Batch, run: Run) -> None:
        rows, ids = batch
        out[rows] = run(*collate(ids, self.manifest.pad_id))  # (b, k)

    def _runner(self, at_once: int) -> Run:
        """The graph, opened for so many calls at a time when it is first needed: many texts want a core each, one wants as many as it is
        worth.
        """
        with self._opening:
            if at_once not in self._open:
                runtime, precision = self.format.split("-", 1)
                worth = max(1, self._path.stat().st_size // CORE_BYTES) if at_once == 1 else self._threads
                self._open[at_once] = _RUNTIMES[runtime].load(self._path, precision, min(self._threads, worth), at_once)
            return self._open[at_once]


def _finish(works: list[Future[None]]) -> None:
    for work in works:
        work.result()  # raises what the work raised
