"""An int8 graph whose activations have a scale for each token: as fast as one with a scale for a whole tensor, and far closer.

A few tokens of a text have activations many times as large as the others'. One scale for all of them leaves the others a handful of
levels. Here each row is divided by its own largest number before it is rounded; the products are integers (ONNX's ``MatMulInteger``), and
are multiplied by the row's and the column's scale afterwards. docs/adr/0012-formats-and-runtimes.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from threadpoolctl import threadpool_limits

from finsight.modeling.graph import write_graph
from finsight.modeling.quantization import Batch, quantize_embeddings
from finsight.modeling.rounding import round_weights

WEIGHT, ACTIVATION, ZERO = 63, 127, 128  # 7 bits, 8 and 8: see quantization.py, which has the reason
HELD = 2**26  # numbers of moments that are held at a time: half a gigabyte


def quantize_rows(source: Path, target: Path, batches: Sequence[Batch]) -> None:
    """Write ``source`` with 8-bit matrices and activations; weights are rounded by what layers get on ``batches`` of training rows."""
    model = onnx.load(source)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    products = [node for node in graph.node if _has_constant_weights(node, weights)]
    rounded: dict[str, tuple[NDArray[np.int8], NDArray[np.float32]]] = {}
    with threadpool_limits(1, "blas"):  # sums come out alike on any number of cores, and with them the bytes
        for moments in _moments(model, products, weights, batches):
            for node in products:
                if node.input[0] in moments:
                    matrix = numpy_helper.to_array(weights[node.input[1]])
                    rounded[node.input[1]] = round_weights(matrix, moments[node.input[0]], WEIGHT)
    _rewrite(graph, products, rounded)
    quantize_embeddings(graph)
    write_graph(model, target)


def _has_constant_weights(node: onnx.NodeProto, weights: dict[str, TensorProto]) -> bool:
    return node.op_type == "MatMul" and node.input[1] in weights and len(weights[node.input[1]].dims) == 2


def _moments(
    model: onnx.ModelProto, products: Sequence[onnx.NodeProto], weights: dict[str, TensorProto], batches: Sequence[Batch]
) -> Iterator[dict[str, NDArray[np.float64]]]:
    """The sum of x xᵀ (k, k) over the tokens of all batches for each input of a product, some inputs at a time."""
    sizes = {node.input[0]: int(weights[node.input[1]].dims[0]) for node in products}
    names = list(sizes)
    while names:
        taken = 1
        while taken < len(names) and sum(sizes[name] ** 2 for name in names[: taken + 1]) <= HELD:
            taken += 1
        part, names = names[:taken], names[taken:]
        yield _moments_of(model, {name: sizes[name] for name in part}, batches)


def _moments_of(model: onnx.ModelProto, sizes: dict[str, int], batches: Sequence[Batch]) -> dict[str, NDArray[np.float64]]:
    import onnxruntime as ort

    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in sizes)
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = 1  # for the same reason
    session = ort.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = {name: np.zeros((k, k)) for name, k in sizes.items()}
    for tokens, mask in batches:
        values = session.run(list(sizes), {"input_ids": tokens, "attention_mask": mask})
        for name, value in zip(sizes, values, strict=True):
            # Of all tokens, padding left out; some layers see the first token alone, or positions in place of tokens.
            rows = value[mask.astype(bool)] if value.shape[:2] == mask.shape else value.reshape(-1, value.shape[-1])
            found[name] += rows.T.astype(np.float64) @ rows
    return found


def _rewrite(
    graph: onnx.GraphProto, products: Sequence[onnx.NodeProto], rounded: dict[str, tuple[NDArray[np.int8], NDArray[np.float32]]]
) -> None:
    """Put integer products in the place of ``products``; an input that several of them read is rounded once."""
    constants = {
        "int8_last_axis": np.array([-1]),
        "int8_least": np.array(1e-12, dtype=np.float32),  # a row of zeros is divided by this
        "int8_step": np.array(1 / ACTIVATION, dtype=np.float32),
        "int8_zero": np.array(ZERO, dtype=np.uint8),
    }
    for name, (integers, scale) in rounded.items():
        constants |= {f"{name}_int8": integers, f"{name}_scale": scale / np.float32(ACTIVATION)}
    places = {node.output[0] for node in products}
    nodes: list[onnx.NodeProto] = []
    known: set[str] = set()
    for node in graph.node:
        if node.output[0] not in places:
            nodes.append(node)
            continue
        (x, weight), out = node.input, node.output[0]
        if x not in known:
            known.add(x)
            nodes += [
                helper.make_node("Abs", [x], [f"{x}_abs"]),
                helper.make_node("ReduceMax", [f"{x}_abs", "int8_last_axis"], [f"{x}_max"], keepdims=1),
                helper.make_node("Max", [f"{x}_max", "int8_least"], [f"{x}_largest"]),  # (b, s, 1)
                helper.make_node("Div", [x, f"{x}_largest"], [f"{x}_unit"]),
                helper.make_node("QuantizeLinear", [f"{x}_unit", "int8_step", "int8_zero"], [f"{x}_uint8"]),
            ]
        nodes += [
            helper.make_node("MatMulInteger", [f"{x}_uint8", f"{weight}_int8", "int8_zero"], [f"{out}_int32"]),
            helper.make_node("Cast", [f"{out}_int32"], [f"{out}_float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{out}_float", f"{weight}_scale"], [f"{out}_column"]),
            helper.make_node("Mul", [f"{out}_column", f"{x}_largest"], [out]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    read = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
