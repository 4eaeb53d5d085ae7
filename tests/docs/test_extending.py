"""The worked examples of docs/extending.md, as they stand there."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from ruamel.yaml import YAML

from conftest import REPO
from contracts import test_result_cache as suite
from doc_pages import blocks
from finsight.adapters import onnx_graph
from finsight.adapters.backbones import fetch_backbone
from finsight.bootstrap import pipeline
from finsight.domain.records import Example
from finsight.errors import ArtifactError
from finsight.params.file import Params, load_yaml
from finsight.service_ports import ResultCache


def example(heading: str, language: str) -> str:
    """The one block of its kind below a heading."""
    [code] = [b.code for b in blocks((REPO / "docs/extending.md").read_text()) if (b.heading, b.language) == (heading, language)]
    return code


def extended(heading: str) -> Params:
    """The shipped parameters with what the page adds."""
    added = YAML(typ="safe").load(example(heading, "yaml"))
    shipped = dict(load_yaml(REPO / "params.yaml"))
    return Params.model_validate(shipped | {name: shipped[name] | what for name, what in added.items()})


def run(heading: str) -> dict[str, Any]:
    """What a block of Python defines."""
    defined: dict[str, Any] = {}
    exec(compile(example(heading, "python"), f"docs/extending.md: {heading}", "exec"), defined)
    return defined


def test_the_corpus_is_read_as_described(in_folder: Path) -> None:
    folder = in_folder / "data/external/headlines"
    folder.mkdir(parents=True)
    (folder / "headlines.csv").write_text(example("A corpus", "text"))
    params = extended("A corpus")
    rows = list(pipeline.reader("headlines", params.corpora["headlines"]).read())
    read = [(row.text, row.label) for row in rows if isinstance(row, Example)]
    assert read == [
        ("Operating profit rose to EUR 13.1 mn", "positive"),
        ("The meeting is on Monday", "neutral"),
        ("Net sales fell by 5 %", "negative"),
    ]


def test_the_backbone_is_one_and_its_digests_are_checked(tmp_path: Path) -> None:
    params = extended("A backbone")
    own, kept = tmp_path / "models/finbert", tmp_path / "backbones" / f"finbert-{'0' * 12}"  # a folder, and as if it had been fetched
    for folder in (own, kept):
        folder.mkdir(parents=True)
        for file in ("config.json", "tokenizer.json", "model.safetensors"):
            (folder / file).write_text("{}")
    assert fetch_backbone(str(own), params.backbones, tmp_path, None).folder == own
    with pytest.raises(ArtifactError, match=r"SHA-256 is .*backbones\.finbert in params\.yaml says"):
        fetch_backbone("finbert", params.backbones, tmp_path, None)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """A model in the form of ours: the mean of word vectors, padding left out, through a layer."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(size=(11, 4)).astype(np.float32), "words"),
        numpy_helper.from_array(rng.normal(size=(4, 3)).astype(np.float32), "layer"),
        numpy_helper.from_array(np.array([2]), "last"),
        numpy_helper.from_array(np.array([1]), "texts"),
    ]
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["vectors"]),
        helper.make_node("Cast", ["attention_mask"], ["ones"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["ones", "last"], ["weights"]),
        helper.make_node("Mul", ["vectors", "weights"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "texts"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["ones", "texts"], ["count"], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("MatMul", ["mean", "layer"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "n"]) for name in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 3])]
    model = helper.make_model(
        helper.make_graph(nodes, "tiny", inputs, outputs, weights), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return path


def test_the_runtime_computes_what_ours_does(graph: Path) -> None:
    runtime = run("A format")
    assert (runtime["runs_here"]("fp32"), runtime["runs_here"]("int8")) == (True, False)
    load: Callable[..., onnx_graph.Run] = runtime["load"]
    tokens, mask = np.array([[1, 2, 3], [4, 5, 0]]), np.array([[1, 1, 1], [1, 1, 0]])
    expected = onnx_graph.load(graph, "fp32", 1, 1)(tokens, mask)
    assert np.abs(load(graph, "fp32", 1, 1)(tokens, mask) - expected).max() < 1e-6


@pytest.fixture
def cache(tmp_path: Path) -> ResultCache:
    made: ResultCache = run("An adapter")["SqliteResults"](tmp_path / "results.db")
    return made


# The suite that every cache of results passes, with the page's in its place.
test_what_was_put_is_there_in_the_order_that_is_asked = suite.test_what_was_put_is_there_in_the_order_that_is_asked
test_the_newest_value_counts = suite.test_the_newest_value_counts
test_nothing_is_nothing = suite.test_nothing_is_nothing


def test_the_adapter_keeps_to_the_words_of_the_port(cache: ResultCache, tmp_path: Path) -> None:
    threads = [threading.Thread(target=lambda n=n: cache.put({str(n): b"x"})) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.get([str(n) for n in range(8)]) == [b"x"] * 8
    again = run("An adapter")["SqliteResults"](tmp_path / "results.db")
    assert again.get(["3"]) == [b"x"]  # another process would find it
    cache.close()  # type: ignore[attr-defined]
    cache.put({"a": b"1"})
    assert cache.get(["a"]) == [None]  # away, and nothing is raised
    again.close()
