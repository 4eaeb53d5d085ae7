"""One suite for every Classifier; on the fp32 graph it is the parity test of the export too."""

import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from conftest import LABELS, Project, starter_rows
from finsight.adapters.bundle_classifier import BundleClassifier, runs_here
from finsight.adapters.onnx_graph import opened
from finsight.adapters.torch_classifier import TorchClassifier
from finsight.bundle import read_bundle
from finsight.domain.metrics import softmax
from finsight.errors import ArtifactError
from finsight.params.export import Format, Program
from finsight.ports import Classifier

TEXTS = [row["text"] for row in starter_rows(80)]
HARD = ["", "x", "word " * 3000, "Sales 📈 up 12 %", "הרווח עלה", "a\nb\tc", "🙂" * 50, "\u200b"]


@pytest.fixture(scope="module")
def everything(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose bundle has every format, with both programs beside it."""
    root = Path(shutil.copytree(finished.root, tmp_path_factory.mktemp("everything") / "project", symlinks=True))
    project = Project(root, finished.backbone, finished.env)
    project.set(export__formats=list(get_args(Format)), export__programs=list(get_args(Program)))
    project.run("export")
    return project


@pytest.fixture(scope="module", params=["torch", "torch-fp16", *get_args(Format)])
def classifier(request: pytest.FixtureRequest, everything: Project) -> Classifier:
    if request.param in ("torch", "torch-fp16"):
        return TorchClassifier(everything.root / "models/checkpoint", max_length=128, half=request.param == "torch-fp16")
    if not runs_here(request.param):
        pytest.skip(f"this host can't compute {request.param}")
    return BundleClassifier(everything.root / "models/bundle", request.param)


def test_labels_are_the_users_in_their_order(classifier: Classifier) -> None:
    assert list(classifier.labels) == LABELS


def test_no_texts_no_rows(classifier: Classifier) -> None:
    assert classifier.logits([]).shape == (0, 3)


def test_rows_come_back_in_the_order_of_the_texts(classifier: Classifier) -> None:
    forward = classifier.logits(TEXTS)
    assert forward.shape == (len(TEXTS), 3)
    assert forward.dtype == np.float32
    np.testing.assert_array_equal(classifier.logits(TEXTS), forward)
    backward = classifier.logits(TEXTS[::-1])[::-1]
    assert np.abs(softmax(forward) - softmax(backward)).max() < 0.05  # batches differ, and int8 scales with them


def test_hard_inputs_give_finite_numbers(classifier: Classifier) -> None:
    logits = classifier.logits(HARD)
    assert logits.shape == (len(HARD), 3)
    assert np.isfinite(logits).all()


def test_text_beyond_the_maximum_length_is_cut(classifier: Classifier) -> None:
    long = "profit " * 3000
    np.testing.assert_allclose(classifier.logits([long]), classifier.logits([long + "loss"]), atol=1e-5)


def test_the_fp32_graph_is_the_checkpoint(finished: Project) -> None:
    checkpoint = TorchClassifier(finished.root / "models/checkpoint", max_length=128)
    graph = BundleClassifier(finished.root / "models/bundle", "onnx-fp32")
    texts = TEXTS + HARD
    temperature = read_bundle(finished.root / "models/bundle").temperature
    np.testing.assert_allclose(graph.logits(texts), checkpoint.logits(texts) / temperature, atol=1e-4)


def test_an_unknown_format_is_refused_by_name(finished: Project) -> None:
    with pytest.raises(ArtifactError, match="no format 'onnx-fp64'; the bundle has onnx-fp32, onnx-int8"):
        BundleClassifier(finished.root / "models/bundle", "onnx-fp64")


@pytest.mark.skipif(runs_here("cuda-fp32"), reason="this host computes it")
def test_a_gpu_s_format_waits_in_the_bundle_for_a_host_that_has_one(everything: Project) -> None:
    bundle = everything.root / "models/bundle"
    graphs = read_bundle(bundle).graphs
    assert (graphs["cuda-fp32"], graphs["cuda-fp16"]) == (graphs["onnx-fp32"], graphs["onnx-fp16"])
    with pytest.raises(ArtifactError, match="cuda-fp32 can't be computed here, for want of its runtime"):
        BundleClassifier(bundle, "cuda-fp32")
    # Where the wheel for GPUs is installed and CUDA is not, ONNX Runtime would go on, on the processor.
    with warnings.catch_warnings(), pytest.raises(ArtifactError, match=r"can't begin CUDAExecutionProvider here; see that CUDA"):
        warnings.simplefilter("ignore")
        opened(bundle / graphs["cuda-fp32"], 1, "CUDAExecutionProvider")


def test_many_texts_on_any_number_of_cores_are_those_of_one(finished: Project) -> None:
    """More than two windows, so that texts are tokenised while others are computed."""
    texts = [f"{row['text']} {i}" for i, row in enumerate(starter_rows(600) * 6)]
    one, three = (BundleClassifier(finished.root / "models/bundle", "onnx-fp32", threads=n).logits(texts) for n in (1, 3))
    np.testing.assert_allclose(one, three, atol=1e-5)
    alone = BundleClassifier(finished.root / "models/bundle", "onnx-fp32")
    for i in (0, 1023, 1024, len(texts) - 1):
        np.testing.assert_allclose(alone.logits([texts[i]])[0], three[i], atol=1e-5)


def test_a_classifier_serves_several_threads_at_a_time(everything: Project) -> None:
    for name in ("onnx-fp32", "openvino-fp32"):
        shared = BundleClassifier(everything.root / "models/bundle", name)
        expected = shared.logits(TEXTS)
        with ThreadPoolExecutor(6) as pool:
            for found in pool.map(lambda _: shared.logits(TEXTS), range(12)):  # noqa: B023
                np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_programs_beside_the_bundle_are_the_checkpoint(everything: Project) -> None:
    import torch

    model = TorchClassifier(everything.root / "models/checkpoint", max_length=128)._model
    ids = torch.arange(2 * 11).reshape(2, 11) + 5
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript deprecated, as docs/export.md does
        expected = model(input_ids=ids, attention_mask=mask).logits
        script = torch.jit.load(everything.root / "models/torchscript/model.pt")
        program = torch.export.load(everything.root / "models/torch-export/model.pt2").module()
        for found in (script(ids, mask), program(ids, mask)):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_without_programs_their_folders_are_empty(finished: Project) -> None:
    assert [list((finished.root / "models" / name).iterdir()) for name in ("torchscript", "torch-export")] == [[], []]


def test_a_missing_checkpoint_says_what_writes_it(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no checkpoint there; `dvc repro train` writes it"):
        TorchClassifier(tmp_path, max_length=128)


@pytest.mark.parametrize(("name", "runtime"), [("onnx-fp32", "onnxruntime"), ("openvino-fp32", "openvino")])
def test_predicting_imports_tokenizers_numpy_and_one_runtime_alone(name: str, runtime: str, everything: Project) -> None:
    import subprocess
    import sys

    code = f"""
import sys
from importlib.metadata import packages_distributions
from finsight import load
load({str(everything.root / "models/bundle")!r}, {name!r}).predict(["Profit rose"])
print(*{{module.split(".")[0] for module in sys.modules}} & set(packages_distributions()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # What Python's environments import at start, and what OpenVINO's own package does where it is there.
    unasked = {"_distutils_hack"} | ({"onnx", "packaging"} if runtime == "openvino" else set())
    assert set(done.stdout.split()) - unasked <= {"finsight", "numpy", "tokenizers", runtime}
