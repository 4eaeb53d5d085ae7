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
    """ONNX Runtime keeps a device id and an upload queue in the home folder where its telemetry is on (and CI is unset)."""
    code = f"""
from pathlib import Path
from finsight.adapters.bundle_classifier import BundleClassifier
BundleClassifier(Path({str(finished.root / "models/bundle")!r})).logits(["Profit rose"])
"""
    kept = {k: v for k, v in os.environ.items() if k not in ("CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")}
    subprocess.run([sys.executable, "-c", code], env={**kept, "HOME": str(tmp_path)}, check=True)
    assert not [p for p in tmp_path.rglob("*") if "onnxruntime" in p.name.lower() or "Microsoft" in p.name]
