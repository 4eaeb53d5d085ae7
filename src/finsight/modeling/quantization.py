"""Smaller numbers in a graph: int8 by blocks, dynamic and static, and fp16. Each writes the same bytes each time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray

from finsight.modeling.graph import silence, write_graph

Batch = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Token ids and attention mask, both (b, longest)."""


def quantize_blocks(source: Path, target: Path) -> None:
    """Write ``source`` with 8-bit weights: matrices in blocks of 128 that share a scale, embeddings by row.

    Activations are rounded by the same blocks as they come. One scale for a whole activation tensor, as ONNX Runtime's dynamic
    quantisation has it, is 1.8 times as fast and flips 4–5 % of the labels: docs/adr/0003-int8-by-blocks.md has the measurements, and
    docs/adr/0012-formats-and-runtimes.md what came after it.
    """
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer  # takes a second to import

    with silence():
        quantizer = MatMulNBitsQuantizer(onnx.load(source), bits=8, block_size=128, is_symmetric=True, accuracy_level=4)
        quantizer.process()
    proto = quantizer.model.model
    quantize_embeddings(proto.graph)
    write_graph(proto, target)


def quantize_dynamic(source: Path, target: Path) -> None:
    """Write ``source`` with 8-bit matrices, a scale a column; each activation tensor gets one scale as it comes.

    Weights use 7 of the 8 bits, as in the other formats with integer products: on processors without VNNI the sums of 16-bit pairs overflow
    otherwise, and a bundle has to give the same answers on both.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with silence(), TemporaryDirectory() as folder:
        made = Path(folder) / "made.onnx"
        quantize_dynamic(source, made, ["MatMul"], weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
        proto = onnx.load(made)
    quantize_embeddings(proto.graph)
    write_graph(proto, target)


def quantize_static(source: Path, target: Path, batches: Sequence[Batch]) -> None:
    """Write ``source`` with 8-bit matrices and activations, the ranges of activations measured on ``batches`` of training rows."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped
        def __init__(self) -> None:
            self._left: Iterator[Batch] = iter(batches)

        def get_next(self) -> dict[str, NDArray[np.int64]] | None:
            found = next(self._left, None)
            return {"input_ids": found[0], "attention_mask": found[1]} if found else None

    with silence(), TemporaryDirectory() as folder:
        made = Path(folder) / "made.onnx"
        quantize_static(
            source,
            made,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # Products of two activations (attention) stay in fp32: their ranges differ from text to text.
            extra_options={"MatMulConstBOnly": True},
        )
        proto = onnx.load(made)
    quantize_embeddings(proto.graph)
    write_graph(proto, target)


def halve(source: Path, target: Path) -> None:
    """Write ``source`` in fp16, logits in fp32 as before; made for GPUs, since processors compute it in fp32 after all."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with silence():
        proto = convert_float_to_float16(onnx.load(source), keep_io_types=True)
    write_graph(proto, target)


def fuse(source: Path, target: Path) -> None:
    """Write ``source`` with ONNX Runtime's own operators in place of the patterns that they compute (normalisation, GELU, attention).

    How many heads there are it finds in the graph: pruned layers have fewer than the model's configuration says.
    """
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    options = FusionOptions("bert")
    # Its fusion of a sum and the normalisation after it reads a bias, which ModernBERT's normalisations don't have.
    options.enable_skip_layer_norm = all(len(n.input) > 2 for n in onnx.load(source).graph.node if n.op_type == "LayerNormalization")
    with silence():
        found = optimize_model(str(source), "bert", opt_level=0, optimization_options=options)
    write_graph(found.model, target)


def quantize_embeddings(graph: onnx.GraphProto) -> None:
    """Store each float table that ``Gather`` reads as int8 rows (n, d) with a scale a row (n, 1), multiplied after the look-up."""
    tables = {t.name: t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 2}
    nodes: list[onnx.NodeProto] = []
    stored: set[str] = set()
    for node in graph.node:
        name = node.input[0] if node.op_type == "Gather" else ""
        if name not in tables:
            nodes.append(node)
            continue
        if name not in stored:
            stored.add(name)
            table = onnx.numpy_helper.to_array(tables[name])
            scale = np.maximum(np.abs(table).max(axis=1, keepdims=True) / 127, np.finfo(np.float32).tiny).astype(np.float32)
            graph.initializer.append(onnx.numpy_helper.from_array(np.rint(table / scale).astype(np.int8), f"{name}_int8"))
            graph.initializer.append(onnx.numpy_helper.from_array(scale, f"{name}_scale"))
            graph.initializer.remove(tables[name])
        ids, out = node.input[1], node.output[0]
        nodes += [
            onnx.helper.make_node("Gather", [f"{name}_int8", ids], [f"{out}_int8"], axis=0),
            onnx.helper.make_node("Gather", [f"{name}_scale", ids], [f"{out}_scale"], axis=0),
            onnx.helper.make_node("Cast", [f"{out}_int8"], [f"{out}_float"], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Mul", [f"{out}_float", f"{out}_scale"], [out]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
