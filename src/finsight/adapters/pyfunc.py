"""A bundle as a complete MLflow model folder: what `mlflow.pyfunc.load_model` and `mlflow models serve` take."""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from finsight.adapters.onnx_graph import installed
from finsight.bundle import Manifest, bundle_digest, read_bundle
from finsight.errors import ArtifactError
from finsight.files import atomic_folder

with warnings.catch_warnings():  # MLflow warns of its own types while it is imported
    warnings.simplefilter("ignore")
    import mlflow.pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

BUNDLE = "bundle"
WITHIN = Path("artifacts") / BUNDLE
"""Where the bundle lies in the folder, byte by byte as it was."""

_NEEDED = ("numpy", "onnxruntime", "tokenizers", "pandas", "mlflow")
_EXAMPLE = pd.DataFrame({"text": ["Operating profit rose to EUR 13.1 mn.", "Net sales fell by 12 %."]})


def package(bundle: Path, target: Path) -> None:
    """Write an MLflow model folder around a bundle; nothing is fetched, pickled or predicted on the way.

    :param bundle: folder that `make export` wrote; it is checked from end to end.
    :param target: replaced as a whole; the bundle then lies in ``artifacts/bundle`` of it.
    :raises ArtifactError: when the bundle is damaged.
    """
    manifest = read_bundle(bundle)
    # MLflow warns of what it did not infer (dependencies, types), although it is told them all.
    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    os.environ.setdefault("MLFLOW_UV_AUTO_DETECT", "false")  # a uv.lock in the working folder is not this model's
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with atomic_folder(target) as folder, TemporaryDirectory() as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        staged = shutil.copytree(bundle, Path(made) / BUNDLE)  # MLflow keeps the source's name
        mlflow.pyfunc.save_model(
            path=str(folder),
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={BUNDLE: str(staged)},
            signature=signature(manifest),
            input_example=_EXAMPLE,
            pip_requirements=list(_needed(manifest)),
            code_paths=[str(Path(__file__).parents[1])],
        )
        _forget_where_it_was_made(folder)
        if bundle_digest(folder / WITHIN) != bundle_digest(bundle):
            raise ArtifactError(f"{target / WITHIN}: not the bytes of {bundle}; is the disk full, or is something writing there?")


def _needed(manifest: Manifest) -> Iterator[str]:
    """What computes the bundle's reference, and the rest; its other formats are used where their runtime is there."""
    for name in (*_NEEDED, "openvino") if next(iter(manifest.graphs)).startswith("openvino") else _NEEDED:
        found = installed() if name == "onnxruntime" else None
        yield "==".join(found or (name, version(name)))


def _forget_where_it_was_made(folder: Path) -> None:
    """Take the paths of this machine out of MLmodel; MLflow itself reads no more than the code file's name."""
    model = Model.load(folder)
    flavor = model.flavors[mlflow.pyfunc.FLAVOR_NAME]
    flavor["model_code_path"] = Path(flavor["model_code_path"]).name
    flavor["artifacts"][BUNDLE]["uri"] = WITHIN.as_posix()
    model.save(folder / "MLmodel")


def signature(manifest: Manifest) -> ModelSignature:
    """Texts in; label, score, certainty and probabilities out."""
    probabilities = [ColSpec(DataType.double, f"prob_{label}") for label in manifest.labels]
    answer = [
        ColSpec(DataType.string, "label"),
        ColSpec(DataType.double, "score", required=bool(manifest.polarity)),
        ColSpec(DataType.boolean, "sure", required=manifest.abstain_below is not None),
    ]
    return ModelSignature(Schema([ColSpec(DataType.string, "text")]), Schema([*answer, *probabilities]))
