"""The numbers of a stage's report that are worth following over time, for Prometheus."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

Report = Mapping[str, Any]


def numbers(stage: str, path: Path | None) -> list[Metric]:
    """Gauges of a report that was just written; none where a stage writes none."""
    if path is None or stage not in _READ:
        return []
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    found: list[Metric] = []
    with suppress(KeyError, TypeError, AttributeError, ZeroDivisionError):  # what a later report lacks is not followed; a run never fails
        found.extend(_READ[stage](report))
    return found


def _ingest(report: Report) -> Iterator[Metric]:
    yield _by(
        "finsight_corpus_rows",
        "Rows that were read, by what became of them.",
        "outcome",
        {"kept": report["rows"], "quarantined": report["quarantined"], "ignored": report["ignored"]},
    )


def _validate(report: Report) -> Iterator[Metric]:
    yield _by(
        "finsight_validation_failures",
        "Expectations that did not hold.",
        "severity",
        {"critical": report["critical"], "warning": report["warning"]},
    )
    yield _by(
        "finsight_corpus_drift",
        "Of the corpora from their approved versions: labels and lengths PSI, words distance.",
        "of",
        {name: value for name, value in report["drift"].items() if isinstance(value, int | float)},
    )


def _prepare(report: Report) -> Iterator[Metric]:
    yield _by("finsight_split_rows", "Rows of a split.", "split", {name: split["rows"] for name, split in report["splits"].items()})


def _train(report: Report) -> Iterator[Metric]:
    yield _one("finsight_train_epoch_seconds", "Mean seconds of an epoch of the last training.", report["seconds"] / report["epochs"])
    yield _one("finsight_train_epochs", "Epochs of the last training.", report["epochs"])
    yield _one("finsight_train_rows_per_second", "Rows that the last training learnt from in a second.", report["rows_per_second"])
    yield _by(
        "finsight_train_loss",
        "Of the best epoch, in nats.",
        "split",
        {"train": report["train_loss"], "validation": report["validation_loss"]},
    )
    yield _by(
        "finsight_train_validation_score",
        "Of the best epoch, on the validation rows.",
        "metric",
        {"accuracy": report["validation_accuracy"], "macro_f1": report["validation_macro_f1"]},
    )


def _evaluate(report: Report) -> Iterator[Metric]:
    followed = ("accuracy", "macro_f1", "mcc", "ece", "nll", "brier")
    yield _by("finsight_test_score", "On the test rows.", "metric", {name: report[name] for name in followed if name in report})
    yield _by("finsight_behaviour_failure_ratio", "Share of behavioural cases that failed.", "suite", report["behaviour"])


def _export(report: Report) -> Iterator[Metric]:
    formats = report["formats"]
    outcome = GaugeMetricFamily("finsight_export_format", "1 for each format, by what became of it.", labels=["format", "outcome"])
    for name in formats:
        outcome.add_metric([name, "made"], 1)
    for what in ("left_out", "not_run", "not_started"):
        for name in report[what]:
            outcome.add_metric([name, what], 1)
    yield outcome
    yield _one("finsight_export_bundle_bytes", "Size of the bundle.", report["bytes"])
    for key, name, meaning in (
        ("label_flip_rate", "finsight_export_label_flip_ratio", "Share of test rows whose label differs from the checkpoint's."),
        ("texts_per_second", "finsight_export_texts_per_second", "Texts that a format predicts in a second."),
    ):
        yield _by(name, meaning, "format", {one: measured[key] for one, measured in formats.items() if measured.get(key) is not None})


def _register(report: Report) -> Iterator[Metric]:
    if report.get("version"):
        yield _one("finsight_registered_version", "Number of the model version that was registered last.", int(report["version"]))
    yield _one("finsight_registration_waiting", "1 where the registration waits for the registry.", int("waits" in report))


_READ: Mapping[str, Callable[[Report], Iterator[Metric]]] = {
    "ingest": _ingest,
    "validate": _validate,
    "prepare": _prepare,
    "train": _train,
    "evaluate": _evaluate,
    "export": _export,
    "register": _register,
}


def _one(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value)


def _by(name: str, meaning: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
