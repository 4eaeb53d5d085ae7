"""A bundle as a classifier, on ONNX Runtime: neither torch nor transformers is imported here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from finsight.bundle import read_bundle
from finsight.errors import ArtifactError
from finsight.modeling.batching import batches, collate
from finsight.settings import quiet

BATCH_TOKENS = 2048  # larger batches leave the cache of a laptop's core


class OnnxClassifier:
    """Scores with one graph of a bundle, which is checked from end to end first."""

    def __init__(self, bundle: Path, graph: str | None = None) -> None:
        """:param graph: a format of the bundle; its first when None."""
        quiet()  # ONNX Runtime reports usage from its first import on, and this class is used from Python directly too
        import onnxruntime as ort

        manifest = read_bundle(bundle)
        name = graph or next(iter(manifest.graphs))
        if name not in manifest.graphs:
            raise ArtifactError(f"{bundle}: no format {name!r}; the bundle has {', '.join(manifest.graphs)}")
        self.manifest = manifest
        """What the bundle says of itself."""
        self._labels, self._temperature = manifest.labels, manifest.temperature
        self._pad_id = manifest.pad_id
        self._tokenizer = Tokenizer.from_file(str(bundle / manifest.tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(manifest.max_length)
        options = ort.SessionOptions()
        options.log_severity_level = 3  # errors
        self._session = ort.InferenceSession(str(bundle / manifest.graphs[name]), options, providers=["CPUExecutionProvider"])

    @property
    def labels(self) -> Sequence[str]:
        """See :class:`finsight.ports.Classifier`."""
        return self._labels

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See :class:`finsight.ports.Classifier`; divided by the bundle's temperature."""
        ids = [np.asarray(e.ids, dtype=np.int32) for e in self._tokenizer.encode_batch_fast(list(texts))]
        out = np.zeros((len(texts), len(self._labels)), dtype=np.float32)
        for rows in batches(np.array([len(row) for row in ids], dtype=np.int64), BATCH_TOKENS):
            tokens, mask = collate([ids[i] for i in rows], self._pad_id)
            out[rows] = self._session.run(["logits"], {"input_ids": tokens, "attention_mask": mask})[0]  # (b, k)
        return out / np.float32(self._temperature)
