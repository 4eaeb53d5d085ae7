"""With which of its formats a bundle predicts on this host. Needs tokenizers, numpy and one runtime alone: no params.yaml, no torch.

A format is taken, in this order: the one that the caller names; the one that ``FINSIGHT_FORMAT`` pins; the one that was the fastest when
this host was measured (``finsight fastest``, the first large ``finsight score``, ``finsight serve``); the bundle's first, which is its
reference.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from finsight.adapters.bundle_classifier import BundleClassifier, runs_here
from finsight.adapters.onnx_graph import GPU_WHEEL, installed
from finsight.bundle import MANIFEST, read_bundle
from finsight.environment import cache_folder, cores, wanted_format
from finsight.errors import ArtifactError
from finsight.files import read_json, write_json
from finsight.pipeline.fastest import Fastest, fastest
from finsight.pipeline.predict import Model


def classifier(bundle: Path, graph: str | None = None, threads: int | None = None) -> BundleClassifier:
    """One format of a bundle: the named one, or else as this module says.

    :param threads: cores to use; all that this process may by default.
    :raises ArtifactError: when the bundle is not what it says, or lacks the format.
    """
    return BundleClassifier(bundle, choice(bundle, graph), threads)


def choice(bundle: Path, graph: str | None = None) -> str | None:
    """The named format, the pinned one, or the one that is known to be the fastest here; None where nothing is known."""
    return graph or wanted_format() or _known(bundle)


def settled(bundle: Path, graph: str | None = None, measuring: Callable[[], None] = lambda: None) -> str:
    """The same, but never nothing: what is not known is measured, which takes seconds, and kept.

    :param measuring: called before.
    """
    if known := choice(bundle, graph):
        return known
    measuring()
    found = measure(bundle)
    with suppress(OSError):  # without a cache it is measured each time
        keep(bundle, found)
    return found.format


def model(bundle: Path, graph: str | None = None, threads: int | None = None) -> Model:
    """A bundle to predict with; the parameters are those of :func:`classifier`."""
    opened = classifier(bundle, graph, threads)
    return Model(opened, opened.manifest.polarity, opened.manifest.abstain_below, opened.format)


def measure(bundle: Path) -> Fastest:
    """Find out which format is the fastest here."""
    manifest = read_bundle(bundle)
    reference = next(iter(manifest.graphs))
    if not runs_here(reference):
        raise ArtifactError(f"{bundle}: {reference}, its reference, can't be run on this host; install its runtime")
    names = [name for name in manifest.graphs if runs_here(name)]
    return fastest(lambda name: BundleClassifier(bundle, name), names, manifest.limits)


def keep(bundle: Path, found: Fastest) -> None:
    """Predict with what was found from now on: the answer stays in the user's cache.

    :raises OSError: when that can't be written.
    """
    write_json(_kept(bundle), asdict(found))


def _known(bundle: Path) -> str | None:
    """The fastest format of a bundle where it has been measured on this host with these libraries."""
    try:
        named = read_json(_kept(bundle), "finsight fastest").get("format")
    except (ArtifactError, OSError):  # not measured, or the bundle is not there, which whoever opens it says
        return None
    return named if isinstance(named, str) and runs_here(named) else None


def _kept(bundle: Path) -> Path:
    """A file for each bundle (its manifest names all digests), processor, wheel and version of a runtime, and whether there is a GPU."""
    onnxruntime = installed() or ("", "")
    gpu = str(onnxruntime[0] == GPU_WHEEL and runs_here("cuda-fp32"))
    parts = [
        hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest(),
        platform.machine(),
        _processor(),
        str(cores()),
        *onnxruntime,
        gpu,
    ]
    try:
        parts.append(version("openvino"))
    except PackageNotFoundError:
        parts.append("")
    return cache_folder() / "fastest" / f"{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:32]}.json"


def _processor() -> str:
    """Its model and what it can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
