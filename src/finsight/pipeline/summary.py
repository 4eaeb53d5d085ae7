"""What a finished pipeline says to the person who ran it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finsight.domain.protocol import in_words
from finsight.files import read_json

NEXT = (
    ('.venv/bin/finsight predict "Net loss narrowed to EUR 1.2 mn from EUR 9.4 mn"', "try the model"),
    (".venv/bin/dvc exp run -S train.lr=3.0e-5", "an experiment; then `.venv/bin/dvc exp show`"),
    (".venv/bin/finsight lineage champion", "where it came from, and who signed it"),
    ("make ui", "runs and model versions in the browser"),
)

UNBEATEN = "NOT BEATEN by the model"
"""What a line says that a reader must not miss."""


def read_summary(reports: Path) -> dict[str, Any]:
    """The reports that both forms of the summary draw on, by name; the one of ``register`` where there is one.

    :raises ArtifactError: when a stage has not written its report yet.
    """
    names = ["prepare", "train", "metrics", "export"]
    if (reports / "registration.json").exists():  # it is not in git, the others are
        names.append("registration")
    return {name: read_json(reports / f"{name}.json", "make repro") for name in names}


def as_text(found: dict[str, Any]) -> str:
    """A screen for the terminal."""
    metrics, export = found["metrics"], found["export"]
    lines = [
        "",
        f"  test accuracy   {_interval(metrics, 'accuracy')}   on {metrics['n']} rows",
        f"  test macro-F1   {_interval(metrics, 'macro_f1')}",
        f"  protocol        {in_words(metrics['protocol'])}",
    ]
    lines.append(f"  calibration     {_calibration(metrics)}")
    if metrics.get("n_without_leaks", metrics["n"]) != metrics["n"]:
        lines.append(
            f"  without leaks   accuracy {metrics['accuracy_without_leaks']:.3f}, macro-F1 {metrics['macro_f1_without_leaks']:.3f} "
            f"on {metrics['n_without_leaks']} rows"
        )
    for name, beaten in metrics["baselines"].items():
        lines.append(f"  {name:<15} macro-F1 {beaten['macro_f1']:.3f}, {_lead(beaten)}")
    if "ordinal_error" not in metrics:
        lines.append("  ordinal error   off: params.yaml states no polarity; so is the lexicon baseline")
    for name, m in export["formats"].items():
        lines.append(
            f"  {name:<15} {m['bytes'] / 1e6:5.1f} MB, {m['texts_per_second']:,.0f} texts/s, {m['single_text_p50_ms']:.1f} ms for one, "
            f"{m['label_flip_rate']:.2%} of labels differ from the checkpoint"
        )
    lines += [f"  {name:<15} left out: {why}" for name, why in export["left_out"].items()]
    lines += [f"  {name:<15} not run: {why}" for name, why in export["not_run"].items()]
    lines += [f"  registered      {_registered(found)}", "  report          reports/report.html", "", "  next:"]
    width = max(len(command) for command, _ in NEXT)
    lines += [f"    {command:<{width}}   {why}" for command, why in NEXT]
    return "\n".join([*lines, ""])


def as_markdown(found: dict[str, Any]) -> str:
    """The results table of the README."""
    metrics, train = found["metrics"], found["train"]
    corpora = " + ".join(sorted(found["prepare"]["corpora"]))
    lines = [
        "| corpus | backbone | test rows | accuracy (95 % interval) | macro-F1 (95 % interval) | MCC | ECE |",
        "|---|---|---|---|---|---|---|",
        f"| {corpora} | {train['backbone']['name']} | {metrics['n']} | {_interval(metrics, 'accuracy')} | {_interval(metrics, 'macro_f1')} "
        f"| {metrics['mcc']:.3f} | {metrics['ece']:.3f} |",
        "",
        "| bundle | size | texts/s | one text, p50 / p99 | cold start | memory | largest probability difference | labels that differ |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, m in found["export"]["formats"].items():
        lines.append(
            f"| {name} | {m['bytes'] / 1e6:.1f} MB | {m['texts_per_second']:,.0f} | {m['single_text_p50_ms']:.1f} / "
            f"{m['single_text_p99_ms']:.1f} ms | {_start(m)} "
            f"| {m['max_abs_diff']:.1e} | {m['label_flip_rate']:.2%} |"
        )
    return "\n".join(lines)


def _start(m: dict[str, float]) -> str:
    """Cold start and memory, where a new process could be started."""
    return f"{m['cold_start_ms'] / 1000:.2f} s | {m['peak_memory_mb']:.0f} MB" if "cold_start_ms" in m else "– | –"


def _lead(beaten: dict[str, float]) -> str:
    moved = f"{beaten['model_has_more']:+.3f} ({beaten['low']:+.3f} to {beaten['high']:+.3f})"
    return f"the model has {moved}" if beaten["low"] > 0 else f"{UNBEATEN}: {moved}"


def _calibration(metrics: dict[str, Any]) -> str:
    found = metrics["calibration"]
    said = f"error {found['ece_before']:.3f} → {metrics['ece']:.3f} at temperature {found['temperature']:.2f}"
    if "accuracy_answered" not in found:
        return said
    sure, right, answered = found["abstain_below"], found["accuracy_answered"], found["coverage"]
    return f"{said}; at least {sure:.0%} sure of {answered:.0%} of rows, {right:.0%} of them right"


def _interval(metrics: dict[str, Any], name: str) -> str:
    return f"{metrics[name]:.3f} ({metrics[f'{name}_low']:.3f}–{metrics[f'{name}_high']:.3f})"


def _registered(found: dict[str, Any]) -> str:
    registration = found.get("registration")
    if registration is None:
        return "not yet: `make repro` does"
    if registration["bundle_sha256"] != found["export"]["bundle_sha256"]:
        return f"not yet: `make repro` does (version {registration['version']} is an older bundle)"
    if "waits" in registration:
        return "it waits in .outbox, since MLflow was away; `finsight registry flush` sends it"
    if registration["version"] is None:
        return f"run {registration['run']}, no version: this was experiment {registration.get('experiment')}"
    return f"{registration['model']} version {registration['version']}, {', '.join(registration['aliases'])}"
