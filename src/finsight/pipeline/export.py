"""Export: the checkpoint as a bundle that is shown to be the same model, or no bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from finsight.bundle import SCHEMA_VERSION, Manifest, bundle_digest, file_digests, write_manifest
from finsight.domain.gates import outside
from finsight.errors import ArtifactError, GateError
from finsight.files import atomic_folder, full_disk_is_oserror, read_json, write_json
from finsight.modeling.backbone import load_tokenizer
from finsight.modeling.checkpoint import load_checkpoint
from finsight.modeling.graph import export_programs
from finsight.modeling.quantization import Batch
from finsight.modeling.units import remove_zero_heads
from finsight.modeling.vocabulary import trim_embeddings, trim_tokenizer
from finsight.params.export import ExportParams
from finsight.pipeline.graphs import TOKENIZER, calibration_batches, plain_tokenizer, used_tokens, write_graphs
from finsight.pipeline.parity import Reference, differences, gated, reference, speed
from finsight.pipeline.tables import read_rows, read_table

if TYPE_CHECKING:
    from finsight.ports import Classifier


@dataclass(frozen=True)
class Sources:
    """What export reads: the model, the rows that it learned from and is tested on, what is known of it."""

    checkpoint: Path
    train: Path
    validation: Path
    test: Path
    prepare_report: Path
    metrics_report: Path


@dataclass(frozen=True)
class Runtimes:
    """How a format of a bundle folder is run on this host.

    :param open: loads it.
    :param here: whether it can be run here at all.
    :param cold_start: ``cold_start_ms`` and ``peak_memory_mb`` of a new process up to its first prediction.
    """

    open: Callable[[Path, str], Classifier]
    here: Callable[[str], bool]
    cold_start: Callable[[Path, str], Mapping[str, float]]


def export(
    sources: Sources,
    checkpoint: Classifier,
    runtimes: Runtimes,
    params: ExportParams,
    facts: Mapping[str, Any],
    bundle: Path,
    programs: Mapping[str, Path],
    report: Path,
) -> dict[str, Any]:
    """Write ``bundle`` with the formats that keep their limits against the checkpoint; return what ``report`` says.

    :param facts: ``max_length``, ``polarity`` and ``licenses`` (but the backbone's) of the manifest, as params.yaml has them.
    :param programs: folder for each of ``torchscript`` and ``torch-export``, empty where it is not wanted.
    :raises GateError: when the first format is outside its limits; ``bundle`` is left as it was then.
    """
    model, labels = load_checkpoint(sources.checkpoint)
    model = remove_zero_heads(model)
    metrics = read_json(sources.metrics_report, "dvc repro evaluate")
    expected = reference(checkpoint, sources.test, metrics["calibration"]["temperature"])
    with atomic_folder(bundle) as partial, full_disk_is_oserror():
        model, pad_id, calibration = _vocabulary(model, load_tokenizer(sources.checkpoint), sources, params, partial)
        graphs = write_graphs(model, params, calibration, partial)
        manifest = _manifest(sources, metrics, params, facts, labels, pad_id, graphs, partial)
        write_manifest(partial, manifest)
        content = _measure(partial, manifest, runtimes, expected, params)
        required = params.formats[0]
        if required in content["not_run"]:
            raise ArtifactError(f"{bundle}: not written: {required}, the first of export.formats, can't be run here; put another one first")
        if required in content["left_out"]:
            raise GateError(
                f"{bundle}: not written, since {required}, the first of export.formats: {content['left_out'][required]}; "
                "look for what is wrong with the graph, or change export.gates in params.yaml"
            )
        _keep(partial, manifest, [name for name in graphs if name not in content["left_out"]])
        content = {"bundle_sha256": bundle_digest(partial), "bytes": sum(f.stat().st_size for f in partial.iterdir()), **content}
        _write_programs(model, params, programs)
    write_json(report, content)
    return content


def _vocabulary(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, sources: Sources, params: ExportParams, folder: Path
) -> tuple[PreTrainedModel, int, list[Batch]]:
    """Write the tokenizer, of all tokens or of those that the corpora use; the model, padding token and calibration rows that go with it.

    Test rows don't count among the texts that use a token, so that the gates see what a text costs that was not asked.
    """
    plain, pad_id = plain_tokenizer(tokenizer), int(tokenizer.pad_token_id)
    ids = read_rows(sources.train)[0].ids
    if params.vocabulary == "corpora":
        texts = [text for path in (sources.train, sources.validation) for text in read_table(path, ["text"])["text"].to_pylist()]
        plain, kept = trim_tokenizer(plain, used_tokens(plain, texts))
        model, pad_id = trim_embeddings(model, kept), int(np.searchsorted(kept, pad_id))
        ids = [np.searchsorted(kept, row).astype(np.int32) for row in ids]
    (folder / TOKENIZER).write_text(plain, encoding="utf-8")
    return model, pad_id, calibration_batches(ids, params.calibration_rows, pad_id)


def _manifest(
    sources: Sources,
    metrics: Mapping[str, Any],
    params: ExportParams,
    facts: Mapping[str, Any],
    labels: list[str],
    pad_id: int,
    graphs: dict[str, str],
    folder: Path,
) -> Manifest:
    backbone = read_json(sources.prepare_report, "dvc repro prepare")["backbone"]
    return Manifest(
        schema_version=SCHEMA_VERSION,
        labels=labels,
        max_length=facts["max_length"],
        pad_id=pad_id,
        opset=params.opset,
        graphs=graphs,
        limits={name: params.gates.of(name).model_dump(include={"max_abs_diff", "label_flip_rate"}) for name in graphs},
        tokenizer=TOKENIZER,
        backbone=backbone["name"],
        backbone_sha256=backbone["sha256"],
        licenses={**facts["licenses"], "backbone": backbone["license"]},
        polarity=dict(facts["polarity"]),
        temperature=metrics["calibration"]["temperature"],
        abstain_below=metrics["calibration"].get("abstain_below"),
        protocol=metrics["protocol"],
        metrics={name: metrics[name] for name in ("accuracy", "macro_f1", "n")},
        files=file_digests(folder),
    )


def _measure(folder: Path, manifest: Manifest, runtimes: Runtimes, expected: Reference, params: ExportParams) -> dict[str, Any]:
    """Each format against the checkpoint: what was measured, what is left out, could not be run here or not in a new process, and why."""
    formats: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    not_run: dict[str, str] = {}
    not_started: dict[str, str] = {}
    for name, file in manifest.graphs.items():
        if not runtimes.here(name):
            not_run[name] = "this host has not what it takes; `finsight fastest` holds it to its limits on one that has"
            continue
        try:
            classifier = runtimes.open(folder, name)
            found: dict[str, Any] = differences(classifier, expected)
        except ArtifactError as unreadable:
            left_out[name] = str(unreadable).replace(f"{folder}/", "")
            continue
        asked = gated(found, len(expected.texts), params.gates.macro_f1_rows)
        if problems := list(outside(asked, params.gates.of(name).model_dump())):
            left_out[name] = f"on the {len(expected.texts)} test rows {'; '.join(problems)}"
            continue
        try:
            found |= runtimes.cold_start(folder, name)
        except ArtifactError as failed:  # for want of memory or time, which say nothing of the format
            not_started[name] = str(failed).replace(f"{folder}: ", "")
        formats[name] = found | speed(classifier, expected.texts) | {"bytes": (folder / file).stat().st_size}
    return {"formats": formats, "left_out": left_out, "not_run": not_run, "not_started": not_started}


def _keep(folder: Path, manifest: Manifest, names: list[str]) -> None:
    """Take the other formats out of the bundle, and the files that none of these uses."""
    graphs = {name: manifest.graphs[name] for name in names}
    for file in set(manifest.graphs.values()) - set(graphs.values()):
        (folder / file).unlink()
    limits = {name: manifest.limits[name] for name in names}
    write_manifest(folder, replace(manifest, graphs=graphs, limits=limits, files=file_digests(folder)))


def _write_programs(model: PreTrainedModel, params: ExportParams, folders: Mapping[str, Path]) -> None:
    with atomic_folder(folders["torchscript"]) as script, atomic_folder(folders["torch-export"]) as program:
        files = {"torchscript": script / "model.pt", "torch-export": program / "model.pt2"}
        if params.programs:
            export_programs(model, {name: files[name] for name in params.programs})
