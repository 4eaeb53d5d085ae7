"""From a torch model to ONNX files with the same bytes each time."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from torch.export import Dim
from transformers import PreTrainedModel


class _Logits(torch.nn.Module):
    """The model with tensors in and one tensor out: graphs have no output objects."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def export_onnx(model: PreTrainedModel, path: Path, opset: int) -> None:
    """Write the fp32 graph: ``input_ids`` and ``attention_mask`` (batch, seq) int64 → ``logits`` (batch, k) float32.

    Batch and length are dynamic. The exporter's notes on where each node came from (stack traces with paths of this
    machine) are removed.
    """
    wrapper = _Logits(model).eval()  # the wrapper too: the exporter restores its mode, and dropout would come back with it
    # Any example will do, but its dimensions must be larger than 1, or the exporter takes them for constants.
    ids = torch.ones((2, 8), dtype=torch.int64)
    dims = {0: Dim("batch", min=1, max=2**16), 1: Dim("seq", min=2, max=2**16)}
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit:
        dims[1] = Dim("seq", min=2, max=limit)
    with _silence():
        program = torch.onnx.export(
            wrapper,
            (),
            kwargs={"input_ids": ids, "attention_mask": torch.ones_like(ids)},
            dynamo=True,
            opset_version=opset,
            dynamic_shapes={"input_ids": dims, "attention_mask": dims},
            output_names=["logits"],
            external_data=False,
            verbose=False,
        )
    if program is None:  # documented for dynamo=False only
        raise RuntimeError("torch.onnx.export returned nothing")
    proto = program.model_proto
    _strip(proto)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def quantize_int8(source: Path, target: Path) -> None:
    """Write ``source`` with 8-bit weights: matrices in blocks of 128 that share a scale, embeddings by row.

    Activations are rounded by the same blocks as they come. One scale for a whole activation tensor, as ONNX Runtime's dynamic
    quantisation has it, is 1.8 times as fast and flips 4–5 % of the labels: docs/adr/0003-int8-by-blocks.md has the measurements.
    """
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer  # takes a second to import

    with _silence():
        quantizer = MatMulNBitsQuantizer(onnx.load(source), bits=8, block_size=128, is_symmetric=True, accuracy_level=4)
        quantizer.process()
    proto = quantizer.model.model
    _quantize_embeddings(proto.graph)
    _strip(proto)
    target.write_bytes(proto.SerializeToString(deterministic=True))


def _quantize_embeddings(graph: onnx.GraphProto) -> None:
    """Store each float table that ``Gather`` reads as int8 rows (n, d) with a scale a row (n, 1), multiplied after the look-up."""
    tables = {t.name: t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 2}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        name = node.input[0] if node.op_type == "Gather" else ""
        if name not in tables:
            nodes.append(node)
            continue
        table = onnx.numpy_helper.to_array(tables[name])
        scale = np.maximum(np.abs(table).max(axis=1, keepdims=True) / 127, np.finfo(np.float32).tiny).astype(np.float32)
        graph.initializer.append(onnx.numpy_helper.from_array(np.rint(table / scale).astype(np.int8), f"{name}_int8"))
        graph.initializer.append(onnx.numpy_helper.from_array(scale, f"{name}_scale"))
        graph.initializer.remove(tables.pop(name))
        ids, out = node.input[1], node.output[0]
        nodes += [
            onnx.helper.make_node("Gather", [f"{name}_int8", ids], [f"{out}_int8"], axis=0),
            onnx.helper.make_node("Gather", [f"{name}_scale", ids], [f"{out}_scale"], axis=0),
            onnx.helper.make_node("Cast", [f"{out}_int8"], [f"{out}_float"], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Mul", [f"{out}_float", f"{out}_scale"], [out]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def _strip(proto: onnx.ModelProto) -> None:
    del proto.metadata_props[:]
    proto.doc_string = ""
    graphs = [proto.graph, *proto.functions]
    for graph in graphs:
        graph.doc_string = ""
        del graph.metadata_props[:]
        for node in graph.node:
            node.doc_string = ""
            del node.metadata_props[:]
    for value in [*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer]:
        value.doc_string = ""
        del value.metadata_props[:]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporters' notices (printed, warned and logged) out of a stage's output; errors still come through."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    # It warns that torchvision's operators are left out.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings(), Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            root.setLevel(level)
