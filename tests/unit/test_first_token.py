"""The graph of each family is its model, the last layer computed for one token alone; what heads of other kinds read stays."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from test_families import FAMILIES

from conftest import LABELS
from finsight.modeling.backbone import load_model
from finsight.modeling.first_token import read_first_token_only
from finsight.modeling.graph import export_onnx
from finsight.modeling.int8_rows import quantize_rows
from finsight.modeling.quantization import fuse, halve, quantize_blocks, quantize_dynamic, quantize_static


def batch(rows: int, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Random tokens, rows of all lengths from 2 to the longest."""
    rng = np.random.default_rng(rows)
    lengths = np.linspace(2, longest, rows).astype(int)
    mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
    return rng.integers(5, 500, size=(rows, longest)) * mask, mask


def ask(path: Path, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"input_ids": tokens, "attention_mask": mask})[0])


@pytest.mark.parametrize(
    "name", [name if name in ("bert", "roberta", "mpnet") else pytest.param(name, marks=pytest.mark.long) for name in FAMILIES]
)
def test_every_familys_graphs_are_the_model(name: str, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(FAMILIES[name]).save_pretrained(tmp_path / "model")
    model = load_model(tmp_path / "model", LABELS).eval()
    graph = tmp_path / "graph.onnx"
    export_onnx(model, graph, 20)
    assert sum("_first_" in node.output[0] for node in onnx.load(graph).graph.node if node.op_type == "Slice") >= 1
    for rows, longest in ((1, 2), (1, 30), (7, 25), (3, 60)):
        tokens, mask = batch(rows, longest)
        with torch.no_grad():
            expected = model(input_ids=torch.from_numpy(tokens), attention_mask=torch.from_numpy(mask)).logits.numpy()
        np.testing.assert_allclose(ask(graph, tokens, mask), expected, atol=1e-5)
    fuse(graph, tmp_path / "fused.onnx")
    np.testing.assert_allclose(ask(tmp_path / "fused.onnx", tokens, mask), expected, atol=1e-5)
    reduced = {
        "fp16": halve,
        "blocks": quantize_blocks,
        "dynamic": quantize_dynamic,
        "static": lambda source, target: quantize_static(source, target, [batch(4, 20), batch(4, 50)]),
        "rows": lambda source, target: quantize_rows(source, target, [batch(4, 20), batch(4, 50)]),
    }
    for kind, make in reduced.items():
        make(graph, tmp_path / f"{kind}.onnx")
        assert np.abs(ask(tmp_path / f"{kind}.onnx", tokens, mask) - expected).max() < 0.05, kind
        assert (tmp_path / f"{kind}.onnx").stat().st_size < 0.9 * graph.stat().st_size, kind


def toy(head: list[onnx.NodeProto]) -> onnx.ModelProto:
    """hidden = x W, twice as a residual, then a head that makes ``logits``."""
    rng = np.random.default_rng(0)
    constants = {"w": rng.normal(size=(4, 4)).astype(np.float32), "zero": np.array(0), "one": np.array([1])}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Add", ["a", "x"], ["hidden"]), *head]
    shapes = (["batch", "seq", 4], None)
    made, read = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(("x", "logits"), shapes, strict=True))
    graph = helper.make_graph(nodes, "toy", [made], [read], [onnx.numpy_helper.from_array(v, n) for n, v in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def result(model: onnx.ModelProto) -> np.ndarray:
    x = np.random.default_rng(1).normal(size=(2, 5, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"x": x})[0])


FIRST = helper.make_node("Gather", ["hidden", "zero"], ["logits"], axis=1)
MEAN = helper.make_node("ReduceMean", ["hidden", "one"], ["logits"], keepdims=0)
BOTH = [
    helper.make_node("Gather", ["hidden", "zero"], ["first"], axis=1),
    helper.make_node("ReduceMean", ["hidden", "one"], ["mean"], keepdims=0),
    helper.make_node("Sub", ["first", "mean"], ["logits"]),
]


@pytest.mark.parametrize(("head", "moved"), [([FIRST], 2), ([MEAN], 0), (BOTH, 0)], ids=["first token", "mean", "both"])
def test_only_what_no_other_token_needs_is_left_out(head: list[onnx.NodeProto], moved: int) -> None:
    model = toy(head)
    expected = result(model)
    assert read_first_token_only(model) == moved
    np.testing.assert_allclose(result(model), expected, atol=1e-6)
    assert [node.op_type for node in model.graph.node].count("Slice") == (1 if moved else 0)
