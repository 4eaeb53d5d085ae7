"""One suite for every Classifier; on the fp32 graph it is the parity test of the export too."""

from pathlib import Path

import numpy as np
import pytest

from conftest import LABELS, Project, starter_rows
from finsight.adapters.onnx_classifier import OnnxClassifier
from finsight.adapters.torch_classifier import TorchClassifier
from finsight.bundle import read_bundle
from finsight.domain.metrics import softmax
from finsight.errors import ArtifactError
from finsight.ports import Classifier

TEXTS = [row["text"] for row in starter_rows(80)]
HARD = ["", "x", "word " * 3000, "Sales 📈 up 12 %", "הרווח עלה", "a\nb\tc", "🙂" * 50, "\u200b"]


@pytest.fixture(scope="module", params=["torch", "onnx-fp32", "onnx-int8"])
def classifier(request: pytest.FixtureRequest, finished: Project) -> Classifier:
    if request.param == "torch":
        return TorchClassifier(finished.root / "models/checkpoint", max_length=128)
    return OnnxClassifier(finished.root / "models/bundle", request.param)


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
    graph = OnnxClassifier(finished.root / "models/bundle", "onnx-fp32")
    texts = TEXTS + HARD
    temperature = read_bundle(finished.root / "models/bundle").temperature
    np.testing.assert_allclose(graph.logits(texts), checkpoint.logits(texts) / temperature, atol=1e-4)


def test_an_unknown_format_is_refused_by_name(finished: Project) -> None:
    with pytest.raises(ArtifactError, match="no format 'onnx-fp64'; the bundle has onnx-fp32, onnx-int8"):
        OnnxClassifier(finished.root / "models/bundle", "onnx-fp64")


def test_a_missing_checkpoint_says_what_writes_it(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no checkpoint there; `dvc repro train` writes it"):
        TorchClassifier(tmp_path, max_length=128)


def test_predicting_imports_neither_torch_nor_transformers(finished: Project) -> None:
    import subprocess
    import sys

    code = f"""
import sys
from pathlib import Path
from finsight.adapters.onnx_classifier import OnnxClassifier
OnnxClassifier(Path({str(finished.root / "models/bundle")!r})).logits(["Profit rose"])
print(sorted({{"torch", "transformers"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
