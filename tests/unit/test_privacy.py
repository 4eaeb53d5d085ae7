"""No library reports usage."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPO, Project
from finsight.environment import quiet


def test_what_a_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("GX_ANALYTICS_ENABLED", raising=False)
    quiet()
    assert (os.environ["HF_HUB_OFFLINE"], os.environ["GX_ANALYTICS_ENABLED"]) == ("0", "false")


def test_dvc_is_told_in_its_own_configuration() -> None:
    done = subprocess.run([sys.executable, "-m", "dvc", "config", "core.analytics"], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "false"


def test_predicting_leaves_no_telemetry_store(finished: Project, tmp_path: Path) -> None:
    """Where they report, ONNX Runtime keeps a device id and an upload queue in the home folder, OpenVINO a client id (CI is unset)."""
    code = f"""
from pathlib import Path
from finsight.adapters.bundle_classifier import BundleClassifier
from finsight.adapters import openvino_graph
bundle = Path({str(finished.root / "models/bundle")!r})
BundleClassifier(bundle, "onnx-fp32").logits(["Profit rose"])
openvino_graph.load(bundle / "model.fp32.onnx", "fp32", 1, 1)
"""
    heard = ("CI", "TF_BUILD", "JENKINS_URL", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    kept = {k: v for k, v in os.environ.items() if k not in heard}
    subprocess.run([sys.executable, "-c", code], env={**kept, "HOME": str(tmp_path)}, check=True)
    assert list(tmp_path.iterdir()) == []
