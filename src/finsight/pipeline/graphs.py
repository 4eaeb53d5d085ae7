"""The files of a bundle: its tokenizer, and a graph for each wanted format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from finsight.modeling.batching import batches, collate
from finsight.modeling.graph import export_onnx
from finsight.modeling.int8_rows import quantize_rows
from finsight.modeling.quantization import Batch, fuse, halve, quantize_blocks, quantize_dynamic, quantize_static
from finsight.params.export import ExportParams, Format

TOKENIZER = "tokenizer.json"
FILES: dict[Format, str] = {
    "onnx-fp32": "model.fp32.onnx",
    "openvino-fp32": "model.fp32.onnx",
    "openvino-bf16": "model.fp32.onnx",
    "onnx-fused": "model.fused.onnx",
    "onnx-fp16": "model.fp16.onnx",
    "onnx-int8": "model.int8.onnx",
    "onnx-int8-blocks": "model.int8-blocks.onnx",
    "onnx-int8-dynamic": "model.int8-dynamic.onnx",
    "onnx-int8-static": "model.int8-static.onnx",
    "openvino-int8": "model.int8-static.onnx",
    "cuda-fp32": "model.fp32.onnx",
    "cuda-fp16": "model.fp16.onnx",
}


def write_graphs(model: PreTrainedModel, params: ExportParams, calibration: Sequence[Batch], folder: Path) -> dict[str, str]:
    """Write the wanted graphs; format → file name. The fp32 graph is the source of the others, so it is always made.

    :param calibration: training rows on which int8 measures what layers get.
    """
    wanted = {FILES[name] for name in params.formats}
    fp32 = folder / FILES["onnx-fp32"]
    export_onnx(model, fp32, params.opset)
    makers: dict[str, Callable[[Path], None]] = {
        "model.fused.onnx": lambda target: fuse(fp32, target),
        "model.fp16.onnx": lambda target: halve(fp32, target),
        "model.int8.onnx": lambda target: quantize_rows(fp32, target, calibration),
        "model.int8-blocks.onnx": lambda target: quantize_blocks(fp32, target),
        "model.int8-dynamic.onnx": lambda target: quantize_dynamic(fp32, target),
        "model.int8-static.onnx": lambda target: quantize_static(fp32, target, calibration),
    }
    for file, make in makers.items():
        if file in wanted:
            make(folder / file)
    if fp32.name not in wanted:
        fp32.unlink()
    return {name: FILES[name] for name in params.formats}


def plain_tokenizer(tokenizer: PreTrainedTokenizerFast) -> str:
    """The plain serialisation of the fast tokenizer: with it alone a bundle runs without transformers."""
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return str(tokenizer.backend_tokenizer.to_str(pretty=True))


def used_tokens(definition: str, texts: Sequence[str]) -> set[int]:
    """The tokens of whole texts: where one is cut, a token may have lost its end."""
    return {token for encoding in Tokenizer.from_str(definition).encode_batch_fast(list(texts)) for token in encoding.ids}


def calibration_batches(ids: Sequence[NDArray[np.int32]], rows: int, pad_id: int) -> list[Batch]:
    """``rows`` token id rows, evenly from all, in batches of like length."""
    picked = [ids[i] for i in np.unique(np.linspace(0, len(ids) - 1, min(rows, len(ids))).astype(int))]
    lengths = np.array([len(row) for row in picked], dtype=np.int64)
    return [collate([picked[i] for i in part], pad_id) for part in batches(lengths, 1024)]
