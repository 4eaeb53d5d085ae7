"""The machine that a model was trained on, as reports/environment.json describes it (see :func:`finsight.modeling.host.describe`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Packages that may change a weight or a graph.
DECIDING = ("torch", "transformers", "tokenizers", "numpy", "onnx", "onnxscript")


def in_words(found: Mapping[str, Any]) -> str:
    """Processor, GPU and versions in one line."""
    packages = ", ".join(f"{name} {found['packages'][name]}" for name in DECIDING if name in found["packages"])
    gpu = f", {found['gpu']} (driver {found['driver']}, CUDA {found['cuda']})" if "gpu" in found else ""
    return f"{found['cpu']}, {found['cores']} cores{gpu}; {found['system']}, Python {found['python']}, {packages}"


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs about two machines in a way that can change a result, in words."""
    found = [f"{key} was {was.get(key)}, is {now.get(key)}" for key in ("cpu", "gpu", "driver", "cuda") if was.get(key) != now.get(key)]
    packages = ((name, was["packages"].get(name), now["packages"].get(name)) for name in DECIDING)
    return found + [f"{name} was {old}, is {new}" for name, old, new in packages if old != new]
