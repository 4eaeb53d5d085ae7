"""The format that predicts: the one that is named, pinned, measured as the fastest here, or the reference, in this order."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from conftest import Project
from finsight import load, runtime
from finsight.errors import ArtifactError
from finsight.pipeline.fastest import PROBE, fastest


class Timed:
    """Answers alike, after a while; ``shift`` moves its answers away from the others'."""

    labels = ("a", "b")

    def __init__(self, seconds: float, shift: float = 0.0) -> None:
        self.seconds, self.shift = seconds, shift

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        time.sleep(self.seconds)
        return np.array([[len(text) % 7 - 3 + self.shift, 0.0] for text in texts], dtype=np.float32)


def test_the_fastest_that_keeps_its_limits_is_taken() -> None:
    formats = {"reference": Timed(0.03), "quick": Timed(0.01), "quickest but wrong": Timed(0.0, shift=4.0), "slow": Timed(0.06)}
    limits = {name: {"max_abs_diff": 0.1, "label_flip_rate": 0.02} for name in formats}
    found = fastest(formats.__getitem__, list(formats), limits)
    assert found.format == "quick"
    assert list(found.rates) == ["reference", "quick", "slow"]
    assert found.rates["quick"] > found.rates["reference"] > found.rates["slow"]
    assert "max_abs_diff is" in found.refused["quickest but wrong"]


@pytest.mark.parametrize(("flips", "rate", "kept"), [(0, 0.0, True), (1, 0.0, False), (3, 0.02, True), (5, 0.02, False), (64, 1.0, True)])
def test_few_flips_among_few_texts_are_no_proof(flips: int, rate: float, kept: bool) -> None:
    """With a share of 0.02, three flips or more of 64 have a chance of 0.14, five or more of 0.0093 (scipy.stats.binom.sf)."""

    class Flipping:
        labels = ("a", "b")

        def __init__(self, number: int) -> None:
            self.number = number

        def logits(self, texts: Sequence[str]) -> np.ndarray:
            sign = np.where(np.arange(len(texts)) < self.number, -1.0, 1.0)
            return np.stack([0.1 * sign, 0 * sign], axis=1).astype(np.float32)

    formats = {"reference": Flipping(0), "other": Flipping(flips)}
    found = fastest(formats.__getitem__, list(formats), {"other": {"max_abs_diff": 0.5, "label_flip_rate": rate}})
    assert ("other" in found.rates) is kept
    if not kept:
        assert found.refused["other"] == f"{flips} of 64 labels flip, a share of {rate:g} is allowed"


def test_a_slower_format_is_never_taken_before_the_reference() -> None:
    formats = {"reference": Timed(0.0), "other": Timed(0.02)}
    assert fastest(formats.__getitem__, list(formats), {"other": {"max_abs_diff": 1.0, "label_flip_rate": 1.0}}).format == "reference"


def test_the_texts_have_many_lengths() -> None:
    assert len(PROBE) == 64
    assert len({len(text.split()) for text in PROBE}) > 20


def test_named_before_pinned_before_measured_before_the_first(finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = finished.root / "models/bundle"
    monkeypatch.setenv("FINSIGHT_CACHE", str(tmp_path))
    monkeypatch.delenv("FINSIGHT_FORMAT", raising=False)
    assert load(bundle).format == "onnx-fp32"
    found = runtime.measure(bundle)
    runtime.keep(bundle, found)
    (kept,) = (tmp_path / "fastest").iterdir()
    assert json.loads(kept.read_text())["format"] == found.format
    assert set(found.rates) | set(found.refused) >= {"onnx-fp32", "onnx-int8"}
    kept.write_text(json.dumps({"format": "onnx-int8"}))
    assert load(bundle).format == "onnx-int8"
    monkeypatch.setenv("FINSIGHT_FORMAT", "onnx-fp32")
    assert load(bundle).format == "onnx-fp32"
    assert load(bundle, "onnx-int8").format == "onnx-int8"
    monkeypatch.setenv("FINSIGHT_FORMAT", "fastest")
    assert load(bundle).format == "onnx-int8"


def test_a_damaged_answer_is_measured_anew_and_an_unknown_pin_is_named(
    finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = finished.root / "models/bundle"
    monkeypatch.setenv("FINSIGHT_CACHE", str(tmp_path))
    monkeypatch.delenv("FINSIGHT_FORMAT", raising=False)
    runtime.keep(bundle, runtime.measure(bundle))
    (kept,) = (tmp_path / "fastest").iterdir()
    for damaged in ("{", '{"format": "x"}', '{"format": "cuda-fp64"}'):
        kept.write_text(damaged)
        assert runtime.choice(bundle) is None
    monkeypatch.setenv("FINSIGHT_FORMAT", "onnx-fp64")
    with pytest.raises(ArtifactError, match="no format 'onnx-fp64'; the bundle has onnx-fp32, onnx-int8"):
        load(bundle)
