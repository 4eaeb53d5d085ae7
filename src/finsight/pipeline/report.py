"""Report: one page for people and a model card, from what the stages before have written. Equal reports give equal bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined, UndefinedError, select_autoescape
from markupsafe import Markup

from finsight.bundle import MANIFEST
from finsight.domain import licences, machine
from finsight.domain.protocol import in_words
from finsight.errors import ArtifactError
from finsight.files import atomic_file, read_json
from finsight.pipeline import drawing
from finsight.pipeline.cells import markdown
from finsight.pipeline.tables import read_csv, read_numbers

STAGES = ("ingest", "validation", "prepare", "train", "environment", "metrics", "slices", "export")
HEADLINE = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "weighted_f1": "weighted F1",
    "balanced_accuracy": "balanced accuracy",
    "mcc": "Matthews correlation",
    "kappa": "Cohen's kappa",
    "auroc": "area under ROC, mean",
    "ordinal_error": "ordinal error (less is better)",
    "nll": "log loss, nats (less is better)",
    "brier": "Brier score (less is better)",
    "ece": "calibration error (less is better)",
    "adaptive_ece": "adaptive calibration error (less is better)",
}
MISTAKES, FAILURES = 30, 10  # that the page shows; of the failures, of each test


def report(reports: Path, bundle: Path, model: str, settings: Mapping[str, str], page: Path, card: Path) -> None:
    """Write ``page`` (HTML without a need of any network) and ``card`` (Markdown in the model-card format of the Hugging Face hub).

    :param reports: folder of the stages' reports and plots.
    :param bundle: the exported bundle, for its manifest.
    :param model: what the registry calls the model.
    :param settings: params.yaml as dotted keys.
    :raises ArtifactError: when a report is missing; the message names the stage that writes it.
    """
    try:
        found = _gather(reports, read_json(bundle / MANIFEST, "make export"))
        found |= {"model": model, "settings": settings, "headline": HEADLINE, "in_words": in_words}
        found |= {"machine": machine.in_words(found["environment"]), "forbidden": licences.in_words(found["bundle"]["licenses"])}
        drawn = {name: Markup(drawing.svg(figure)) for name, figure in _figures(reports / "plots", found).items()}  # noqa: S704 - our own
        texts = {page: _filled("report.html", found | {"drawn": drawn})}
        texts[card] = _filled("model_card.md", found | {"metadata": _metadata(found)})
    except (UndefinedError, LookupError, ValueError, TypeError) as error:
        raise ArtifactError(f"{reports}: one is not as `dvc repro` writes it ({error}); `dvc repro --force` writes all") from None
    for path, text in texts.items():
        with atomic_file(path) as partial:
            partial.write_text(text, encoding="utf-8")


def _filled(template: str, found: Mapping[str, Any]) -> str:
    templates = Environment(
        loader=PackageLoader("finsight.pipeline"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters["markdown"] = markdown
    return templates.get_template(template).render(**found)


def _gather(reports: Path, bundle: dict[str, Any]) -> dict[str, Any]:
    """All that the page and the card say, by what it is about."""
    found: dict[str, Any] = {name: read_json(reports / f"{name}.json", "dvc repro") for name in STAGES}
    mistakes = read_csv(reports / "mistakes.csv")
    failures: dict[str, list[dict[str, str]]] = {}
    for row in read_csv(reports / "failures.csv"):
        failures.setdefault(row["test"], []).append(row)
    shown = [row | {"words": json.loads(row["words"] or "[]")} for row in mistakes[:MISTAKES]]
    few = {name: rows[:FAILURES] for name, rows in failures.items()}
    return found | {"bundle": bundle, "mistakes": shown, "mistaken": len(mistakes), "failures": few}


def _figures(plots: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    labels, calibration = found["bundle"]["labels"], found["metrics"]["calibration"]
    matrix = np.zeros((len(labels), len(labels)), dtype=np.int64)
    for row in read_csv(plots / "confusion.csv"):
        matrix[labels.index(row["actual"]), labels.index(row["predicted"])] += 1
    wanted = float(found["settings"]["evaluate.abstain_precision"])
    return {
        "confusion": drawing.confusion(labels, matrix),
        "reliability": drawing.reliability(read_numbers(plots / "reliability.csv")),
        "coverage": drawing.coverage(read_numbers(plots / "coverage.csv"), wanted, calibration.get("coverage")),
        "curves": drawing.curves(read_numbers(plots / "curves.csv")),
        "lengths": drawing.lengths(read_numbers(plots / "lengths.csv")),
    }


def _metadata(found: Mapping[str, Any]) -> str:
    """The card's head, as YAML: what hubs and search engines read."""
    metrics, bundle = found["metrics"], found["bundle"]
    tested = " + ".join(metrics["protocol"]["test"])
    results = [
        EvalResult(
            task_type="text-classification",
            task_name="Sentiment",
            dataset_type=tested,
            dataset_name=f"{tested}: {in_words(metrics['protocol'])}",
            dataset_split="test",
            metric_type=kind,
            metric_name=HEADLINE[name],
            metric_value=round(metrics[name], 4),
        )
        for name, kind in (("accuracy", "accuracy"), ("macro_f1", "f1"), ("mcc", "matthews_correlation"), ("ece", "ece"))
    ]
    licences = sorted({*bundle["licenses"].values()} - {"CC0-1.0"}) or ["CC0-1.0"]
    one = {"license": licences[0].lower()} if len(licences) == 1 else {"license": "other", "license_name": " and ".join(licences)}
    data = ModelCardData(
        language=found["settings"]["validate.language"] or None,
        library_name="onnx",
        pipeline_tag="text-classification",
        tags=["finance", "sentiment-analysis", "onnx", "finsight"],
        datasets=metrics["protocol"]["train"],
        model_name=found["model"],
        eval_results=results,
        **one,
    )
    return str(data.to_yaml())
