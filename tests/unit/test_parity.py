"""A format that is not the checkpoint is caught, in whatever way it is broken."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from conftest import Project
from finsight.adapters import onnx_graph, openvino_graph
from finsight.adapters.bundle_classifier import BundleClassifier
from finsight.adapters.torch_classifier import TorchClassifier
from finsight.bundle import file_digests, read_bundle, write_manifest
from finsight.domain.gates import outside
from finsight.errors import ArtifactError
from finsight.pipeline.parity import HARD, Reference, differences, gated, reference

LIMITS = {"max_abs_diff": 1e-4, "label_flip_rate": 0.0, "macro_f1_loss": 0.005}
GRAPH = "model.fp32.onnx"


@pytest.fixture(scope="module")
def expected(finished: Project) -> Reference:
    bundle = read_bundle(finished.root / "models/bundle")
    checkpoint = TorchClassifier(finished.root / "models/checkpoint", bundle.max_length)
    return reference(checkpoint, finished.root / "data/prepared/test.parquet", bundle.temperature)


def broken(bundle: Path, change: Callable[[onnx.GraphProto], None]) -> Path:
    """The bundle's graph changed, and sealed again as if it had been exported so."""
    model = onnx.load(bundle / GRAPH)
    change(model.graph)
    onnx.save(model, bundle / GRAPH)
    return sealed(bundle)


def sealed(bundle: Path) -> Path:
    manifest = read_bundle_unchecked(bundle)
    (bundle / "bundle.json").unlink()
    write_manifest(bundle, replace(manifest, files=file_digests(bundle)))
    return bundle


def read_bundle_unchecked(bundle: Path):  # type: ignore[no-untyped-def]
    import json

    from finsight.bundle import Manifest

    content = json.loads((bundle / "bundle.json").read_text())
    del content["sha256"]
    return Manifest(**content)


def swapped_labels(graph: onnx.GraphProto) -> None:
    last = next(node for node in graph.node if "logits" in node.output)
    for tensor in graph.initializer:
        if tensor.name in last.input[1:]:
            values = numpy_helper.to_array(tensor).copy()
            values[[0, 2]] = values[[2, 0]]
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def ignored_mask(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == "attention_mask" and node.op_type == "Cast":
                node.input[i] = "all_ones"
    ones = [
        helper.make_node("Shape", ["attention_mask"], ["mask_shape"]),
        helper.make_node("ConstantOfShape", ["mask_shape"], ["all_ones"], value=helper.make_tensor("one", TensorProto.INT64, [1], [1])),
    ]
    nodes = [*ones, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def truncated_weights(graph: onnx.GraphProto) -> None:
    tensor = max((t for t in graph.initializer if t.data_type == TensorProto.FLOAT), key=lambda t: int(np.prod(t.dims)))
    values = numpy_helper.to_array(tensor).copy()
    values[len(values) // 2 :] = 0
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def not_a_number(graph: onnx.GraphProto) -> None:
    tensor = next(t for t in graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) == 1)
    tensor.CopyFrom(numpy_helper.from_array(np.full(tensor.dims, np.nan, np.float32), tensor.name))


def problems(bundle: Path, expected: Reference) -> list[str]:
    return list(outside(gated(differences(BundleClassifier(bundle, "onnx-fp32"), expected), len(expected.texts), 1), LIMITS))


def test_the_graph_as_exported_is_the_checkpoint(finished: Project, expected: Reference) -> None:
    assert problems(finished.root / "models/bundle", expected) == []


@pytest.mark.parametrize("change", [swapped_labels, ignored_mask, truncated_weights, not_a_number])
def test_a_broken_graph_is_caught(
    change: Callable[[onnx.GraphProto], None], finished: Project, expected: Reference, tmp_path: Path
) -> None:
    bundle = broken(Path(shutil.copytree(finished.root / "models/bundle", tmp_path / "bundle")), change)
    assert any("max_abs_diff" in problem for problem in problems(bundle, expected))


def test_a_file_cut_short_is_refused_in_one_line(finished: Project, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(finished.root / "models/bundle", tmp_path / "bundle"))
    content = (bundle / GRAPH).read_bytes()
    (bundle / GRAPH).write_bytes(content[: len(content) // 2])
    for runtime in (onnx_graph, openvino_graph):
        with pytest.raises(ArtifactError, match=rf"{GRAPH}: .* can't read it: .*; export again") as caught:
            runtime.load(bundle / GRAPH, "fp32", 1, 1)
        assert "\n" not in str(caught.value)


class Fixed:
    """Says what it is told to."""

    labels = ("a", "b")

    def __init__(self, answers: dict[str, list[float]]) -> None:
        self.answers = answers

    def logits(self, texts: list[str]) -> np.ndarray:
        return np.array([self.answers[text] for text in texts], dtype=np.float32).reshape(-1, 2)


def test_the_change_of_macro_f1_and_its_interval_are_those_of_the_rows() -> None:
    """Eight rows, all right at the checkpoint; the format has one of them wrong: macro-F1 from 1 to (6/7 + 8/9) / 2."""
    texts = [f"t{i}" for i in range(8)]
    right = {text: [5.0, 0.0] if i < 4 else [0.0, 5.0] for i, text in enumerate(texts)} | {text: [1.0, 0.0] for text in HARD}
    wrong = right | {"t0": [0.0, 5.0]}
    actual, units = np.array([0] * 4 + [1] * 4), np.arange(8)
    probs, hard = (
        np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (np.array([right[t] for t in asked]) for asked in (texts, HARD))
    )
    found = differences(Fixed(wrong), Reference(texts, actual, units, probs, hard))
    assert found["macro_f1_delta"] == pytest.approx((6 / 7 + 8 / 9) / 2 - 1)
    assert found["label_flip_rate"] == pytest.approx(1 / 8)
    assert found["macro_f1_delta_low"] < found["macro_f1_delta"] < found["macro_f1_delta_high"] == 0
    assert gated(found, 8, 9)["macro_f1_loss"] == 0
    assert gated(found, 8, 8)["macro_f1_loss"] == pytest.approx(-found["macro_f1_delta_low"])


def test_a_hard_text_counts_for_the_largest_difference() -> None:
    right = {"t": [5.0, 0.0]} | {text: [1.0, 0.0] for text in HARD}
    probs, hard = (
        np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (np.array([right[t] for t in asked]) for asked in (["t"], HARD))
    )
    found = differences(Fixed(right | {"": [0.0, 1.0]}), Reference(["t"], np.array([0]), np.array([0]), probs, hard))
    assert found["label_flip_rate"] == 0
    assert found["max_abs_diff"] == pytest.approx(float(np.tanh(0.5)), abs=1e-6)
