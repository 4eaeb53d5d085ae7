"""Compare: two models on the same test rows, with what the difference is worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from finsight.domain.metrics import precision_recall_f1
from finsight.domain.scores import LOWER_IS_BETTER, Statistic, confusions
from finsight.domain.significance import LEVEL, Difference, differences, holm, mcnemar, rows_needed
from finsight.errors import DataError
from finsight.files import read_json
from finsight.params.evaluate import EvaluateParams
from finsight.params.file import read_flat
from finsight.params.gates import GateParams
from finsight.pipeline.predictions import Predictions, read_predictions
from finsight.pipeline.slices import Mask, slices

PREDICTIONS = "predictions.parquet"
REPORTS = ("metrics", "train", "prepare", "export")
BETTER, WORSE, SAME = "better", "worse", "no significant difference"


@dataclass(frozen=True)
class Side:
    """One of the two models, with the reports of its stages.

    :param name: what the user called it.
    :param reports: name → content of what stands in reports/, of those that there are: metrics, train, prepare, export.
    :param params: params.yaml as dotted keys.
    """

    name: str
    predictions: Predictions
    reports: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)


def read_side(name: str, folder: Path, settings: Path) -> Side:
    """One side from its reports.

    :param folder: with predictions.parquet, and those of the stages' reports that there are.
    :param settings: its params.yaml, if there is one.
    """
    reports = {kind: read_json(folder / f"{kind}.json", "dvc repro") for kind in REPORTS if (folder / f"{kind}.json").exists()}
    return Side(
        name, read_predictions(folder / PREDICTIONS, f"{PREDICTIONS} of {name}"), reports, read_flat(settings) if settings.exists() else {}
    )


def compare(base: Side, new: Side, polarity: Mapping[str, float], params: EvaluateParams, gates: GateParams) -> dict[str, Any]:
    """What changed from ``base`` to ``new``: verdict, metrics, labels, slices, rows, size, speed, parameters, data, and the gates' answer.

    Only rows that both have with the same label count. The primary metric decides at 5 %; the p-values of all others are corrected for
    their number (Holm).

    :raises DataError: when the two have other labels, or no row in common.
    """
    before, after = _in_common(base, new)
    theirs, ours = (_statistics(side, polarity, params.calibration_bins) for side in (before, after))
    found = differences(ours, theirs, before.actual, params.bootstrap_resamples, params.seed)
    if params.primary not in found:
        raise DataError(f"evaluate.primary: {params.primary} is not defined on the {len(before.actual)} rows that both models have")
    by_slice = dict(_by_slice(before, after, polarity, params))
    family = {name: d for name, d in found.items() if name != params.primary} | {name: d for name, (d, _) in by_slice.items()}
    corrected = holm({name: d.p for name, d in family.items()})
    once = np.ones((1, len(before.actual)))

    def row(name: str, difference: Difference) -> dict[str, Any]:
        values = {"base": float(theirs[name](once)[0]), "new": float(ours[name](once)[0])}
        p = difference.p if name == params.primary else corrected[name]
        return {**values, **_difference(difference), "p": p, "verdict": _verdict(name, difference, p)}

    primary = found[params.primary]
    was_right, is_right = before.predicted == before.actual, after.predicted == after.actual
    fixed, broken = ~was_right & is_right, was_right & ~is_right
    content: dict[str, Any] = {
        "base": base.name,
        "new": new.name,
        "rows": {"base": len(base.predictions.actual), "new": len(new.predictions.actual), "both": len(before.actual)},
        "primary": params.primary,
        "verdict": _verdict(params.primary, primary, primary.p),
        "rows_needed": rows_needed(primary, len(before.actual)),
        "metrics": {name: row(name, difference) for name, difference in found.items()},
        "slices": {
            name: {
                "rows": n,
                "few": n < params.min_slice_rows,
                **_difference(d),
                "p": corrected[name],
                "verdict": _verdict(params.primary, d, corrected[name]),
            }
            for name, (d, n) in by_slice.items()
        },
        "mcnemar": {"fixed": int(fixed.sum()), "broken": int(broken.sum()), "p": mcnemar(int(fixed.sum()), int(broken.sum()))},
        "flips": {"fixed": _rows(before, after, fixed), "broken": _rows(before, after, broken)},
        "formats": _formats(base, new),
        "params": _changed(base.params, new.params),
        "data": _changed(_data(base), _data(new)),
    }
    content["gates"] = failures(content, new, gates)
    return content


def failures(content: Mapping[str, Any], new: Side, gates: GateParams) -> list[str]:
    """What keeps the new model from passing, in words; empty where nothing does."""
    verdict, primary = content["verdict"], content["primary"]
    found = []
    if (gates.primary == "better" and verdict != BETTER) or (gates.primary == "not worse" and verdict == WORSE):
        found.append(f"gates.primary: {primary} has to be {gates.primary}, it is: {verdict}{_rows_in_words(content)}")
    measured = new.reports.get("metrics", {})
    for key, limits, passes in (("at_most", gates.at_most, float.__le__), ("at_least", gates.at_least, float.__ge__)):
        for name, limit in limits.items():
            value = measured.get(name)
            if not isinstance(value, int | float):
                found.append(f"gates.{key}.{name}: reports/metrics.json of {new.name} has no such number")
            elif not passes(float(value), limit):
                found.append(f"gates.{key}.{name}: {value:.4g}, the limit is {limit:g}")
    for name, row in content["formats"].items():
        if "bytes" in row and row["bytes"]["new"] > (1 + gates.max_bundle_growth) * row["bytes"]["base"]:
            growth = row["bytes"]["new"] / row["bytes"]["base"] - 1
            found.append(f"gates.max_bundle_growth: {name} is {growth:.0%} larger, the limit is {gates.max_bundle_growth:.0%}")
    return found


def _rows_in_words(content: Mapping[str, Any]) -> str:
    n = content["rows_needed"]
    return f" (about {n:,} test rows would tell)" if content["verdict"] == SAME and n else ""


def _in_common(base: Side, new: Side) -> tuple[Predictions, Predictions]:
    """The rows that both have, in one order, and the labels in one order."""
    a, b = base.predictions, new.predictions
    if set(a.labels) != set(b.labels):
        raise DataError(f"{base.name} has the labels {list(a.labels)}, {new.name} has {list(b.labels)}: they can't be compared")
    columns = [list(b.labels).index(label) for label in a.labels]
    number = np.argsort(columns)  # of b's labels among a's
    b = Predictions(a.labels, b.table, number[b.actual], b.probs[:, columns])
    at = {key: i for i, key in enumerate(_keys(b))}
    pairs = [(i, at[key]) for i, key in enumerate(_keys(a)) if key in at]
    if not pairs:
        raise DataError(f"{base.name} and {new.name} have no test row in common; evaluate both on one corpus and split")
    first, second = np.array(pairs).T
    return a.take(first), b.take(second)


def _keys(found: Predictions) -> Iterator[tuple[str, str, int]]:
    """What tells a row from others: its text, its label, and how many of the kind stand before it."""
    seen: Counter[tuple[str, str]] = Counter()
    for key in zip(found.table["hash"].to_pylist(), found.table["label"].to_pylist(), strict=True):
        yield (*key, seen[key])
        seen[key] += 1


def _statistics(found: Predictions, polarity: Mapping[str, float], bins: int) -> dict[str, Statistic]:
    """The headline metrics, and the F1 of each label."""
    weighted = confusions(found.actual, found.predicted, len(found.labels))

    def f1(i: int) -> Statistic:
        return lambda weights: precision_recall_f1(weighted(weights))[2][:, i]

    return found.statistics(polarity, bins) | {f"f1_{label}": f1(i) for i, label in enumerate(found.labels)}


def _by_slice(
    before: Predictions, after: Predictions, polarity: Mapping[str, float], params: EvaluateParams
) -> Iterator[tuple[str, tuple[Difference, int]]]:
    """The difference in the primary metric on each slice."""
    found: dict[str, Mask] = slices(before.table, params.slices)
    for name, mask in found.items():
        a, b = before.take(mask), after.take(mask)
        ours, theirs = ({str(params.primary): side.statistics(polarity, params.calibration_bins)[params.primary]} for side in (b, a))
        if difference := differences(ours, theirs, a.actual, params.bootstrap_resamples, params.seed).get(params.primary):
            yield name, (difference, int(mask.sum()))


def _verdict(metric: str, difference: Difference, p: float) -> str:
    if p >= 1 - LEVEL or not difference.value:
        return SAME
    return BETTER if (difference.value < 0) == (metric in LOWER_IS_BETTER) else WORSE


def _difference(difference: Difference) -> dict[str, float]:
    return {"difference": difference.value, "low": difference.low, "high": difference.high}


def _rows(before: Predictions, after: Predictions, mask: Mask) -> list[dict[str, Any]]:
    """The rows that changed sides, those that the new model is surest of first."""
    numbers = np.flatnonzero(mask)
    confidence = after.probs.max(axis=1)
    texts, ids = before.table["text"].to_pylist(), before.table["id"].to_pylist()
    return [
        {
            "id": ids[i],
            "text": texts[i],
            "label": before.labels[before.actual[i]],
            "base": before.labels[before.predicted[i]],
            "new": after.labels[after.predicted[i]],
            "confidence": round(float(confidence[i]), 4),
        }
        for i in numbers[np.argsort(-confidence[numbers], kind="stable")]
    ]


def _formats(base: Side, new: Side) -> dict[str, dict[str, dict[str, float]]]:
    """Size and speed of each format that both bundles have."""
    a, b = (side.reports.get("export", {}).get("formats", {}) for side in (base, new))
    names = ("bytes", "texts_per_second", "single_text_p50_ms")
    return {f: {n: {"base": a[f][n], "new": b[f][n]} for n in names if n in a[f] and n in b[f]} for f in a if f in b}


def _data(side: Side) -> dict[str, Any]:
    """What the model was made from, of prepare's report."""
    prepared = side.reports.get("prepare", {})
    found = {f"rows of {split}": about.get("rows") for split, about in prepared.get("splits", {}).items()}
    found |= {f"rows of {corpus}": rows for corpus, rows in prepared.get("corpora", {}).items()}
    return found | {"backbone": prepared.get("backbone", {}).get("name"), "protocol": prepared.get("protocol")}


def _changed(base: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    keys: Sequence[str] = [*base, *(key for key in new if key not in base)]
    return {key: {"base": base.get(key), "new": new.get(key)} for key in keys if base.get(key) != new.get(key)}
