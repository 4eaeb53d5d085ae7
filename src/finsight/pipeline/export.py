"""Export: the checkpoint as a bundle that is shown to be the same model, or no bundle."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import PreTrainedModel

from finsight.bundle import SCHEMA_VERSION, Manifest, bundle_digest, file_digests, write_manifest
from finsight.domain.gates import outside
from finsight.domain.metrics import softmax
from finsight.errors import GateError
from finsight.files import atomic_folder, full_disk_is_oserror, read_json, write_json
from finsight.modeling.backbone import load_tokenizer
from finsight.modeling.checkpoint import load_checkpoint
from finsight.modeling.graph import export_onnx, quantize_int8
from finsight.params.export import ExportParams
from finsight.pipeline.tables import read_table

if TYPE_CHECKING:
    from finsight.ports import Classifier

SINGLES = 50  # texts that are timed one by one


def export(
    checkpoint: Path,
    reference: Classifier,
    open_graph: Callable[[Path, str], Classifier],
    test: Path,
    params: ExportParams,
    max_length: int,
    licenses: Mapping[str, str],
    polarity: Mapping[str, float],
    prepare_report: Path,
    metrics_report: Path,
    bundle: Path,
    report: Path,
) -> dict[str, Any]:
    """Write ``bundle`` and compare each of its graphs with the checkpoint on the test rows; return what ``report`` says.

    :param reference: the checkpoint itself.
    :param open_graph: loads one format of a bundle folder.
    :param licenses: corpus name → SPDX identifier; the backbone's joins them from ``prepare_report``.
    :raises GateError: when a graph is outside its limits; ``bundle`` is left as it was then.
    """
    model, labels = load_checkpoint(checkpoint)
    backbone = read_json(prepare_report, "dvc repro prepare")["backbone"]
    metrics = read_json(metrics_report, "dvc repro evaluate")
    texts = read_table(test)["text"].to_pylist()
    calibration = metrics["calibration"]
    expected = softmax(reference.logits(texts) / calibration["temperature"])
    measured: dict[str, Any] = {}
    failures: list[str] = []
    with atomic_folder(bundle) as partial, full_disk_is_oserror():
        graphs = _write_graphs(model, params, partial)
        # The plain serialisation of the fast tokenizer: with it alone a bundle runs without transformers.
        tokenizer = load_tokenizer(checkpoint)
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.save(str(partial / "tokenizer.json"))
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            labels=labels,
            max_length=max_length,
            pad_id=int(tokenizer.pad_token_id),
            opset=params.opset,
            graphs=graphs,
            tokenizer="tokenizer.json",
            backbone=backbone["name"],
            backbone_sha256=backbone["sha256"],
            licenses={f"corpus {name}": license_ for name, license_ in licenses.items()} | {"backbone": backbone["license"]},
            polarity=dict(polarity),
            temperature=calibration["temperature"],
            abstain_below=calibration.get("abstain_below"),
            protocol=metrics["protocol"],
            metrics={name: metrics[name] for name in ("accuracy", "macro_f1", "n")},
            files=file_digests(partial),
        )
        write_manifest(partial, manifest)
        for name, file in graphs.items():
            classifier = open_graph(partial, name)
            measured[name] = _compare(classifier, texts, expected) | {"bytes": (partial / file).stat().st_size}
            limits = params.gates[name].model_dump()  # type: ignore[index]
            failures += [f"{name}: {problem}" for problem in outside(measured[name], limits)]
        if failures:
            raise GateError(
                f"{bundle}: not written, since on the {len(texts)} test rows {'; '.join(failures)}; "
                "drop the format from export.formats or change export.gates in params.yaml"
            )
        digest = bundle_digest(partial)
    content = {"bundle_sha256": digest, "bytes": sum(f.stat().st_size for f in bundle.rglob("*") if f.is_file()), "formats": measured}
    write_json(report, content)
    return content


def _write_graphs(model: PreTrainedModel, params: ExportParams, folder: Path) -> dict[str, str]:
    """Write the wanted graphs; format → file name. The fp32 graph is the source of the others, so it is always made."""
    files = {"onnx-fp32": "model.fp32.onnx", "onnx-int8": "model.int8.onnx"}
    fp32 = folder / files["onnx-fp32"]
    export_onnx(model, fp32, params.opset)
    if "onnx-int8" in params.formats:
        quantize_int8(fp32, folder / files["onnx-int8"])
    if "onnx-fp32" not in params.formats:
        fp32.unlink()
    return {name: files[name] for name in params.formats}


def _compare(classifier: Classifier, texts: Sequence[str], expected: np.ndarray) -> dict[str, float]:
    """Largest probability difference, label flips, and speed on this host."""
    classifier.logits(texts[:8])  # the first call plans memory
    started = time.perf_counter()
    probs = softmax(classifier.logits(texts))
    seconds = time.perf_counter() - started
    singles = []
    for text in texts[:SINGLES]:
        begun = time.perf_counter()
        classifier.logits([text])
        singles.append(time.perf_counter() - begun)
    return {
        "max_abs_diff": float(np.abs(probs - expected).max()),
        "label_flip_rate": float((probs.argmax(axis=1) != expected.argmax(axis=1)).mean()),
        "texts_per_second": round(len(texts) / seconds, 1),
        "single_text_p50_ms": round(1000 * float(np.median(singles)), 2),
    }
