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
from finsight.domain.significance import ALPHA, BETTER, SAME, WORSE, Difference, differences, holm, mcnemar, rows_needed
from finsight.errors import DataError
from finsight.files import read_json
from finsight.params.evaluate import EvaluateParams
from finsight.params.file import dotted, read_lock
from finsight.pipeline.predictions import Predictions, read_predictions
from finsight.pipeline.slices import Mask, slices

PREDICTIONS = "predictions.parquet"
_ROUNDING = 1e-9
REPORTS = ("metrics", "train", "prepare", "export")
# What a model is made from; equal numbers of rows may hide another label.
_MADE_FROM = ("data/raw/corpus.parquet", "data/prepared")


@dataclass(frozen=True)
class Side:
    """One of the two models, with the reports of its stages.

    :param name: what the user called it.
    :param reports: name → content of what stands in reports/, of those that there are: metrics, train, prepare, export.
    :param params: what it was made with, as dotted keys.
    :param outputs: path → digest of what its pipeline wrote.
    """

    name: str
    predictions: Predictions
    reports: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)


def read_side(name: str, folder: Path, lock: Path) -> Side:
    """One side from its reports.

    :param folder: with predictions.parquet, and those of the stages' reports that there are.
    :param lock: its dvc.lock, if there is one: params.yaml may have been changed since.
    :raises DataError: when there are no predictions, or the metrics beside them are another model's.
    """
    if not (folder / PREDICTIONS).exists():
        raise DataError(f"{name}: it has no reports/{PREDICTIONS}; `dvc repro evaluate` writes it there")
    reports = {kind: read_json(folder / f"{kind}.json", "dvc repro") for kind in REPORTS if (folder / f"{kind}.json").exists()}
    found, told = read_predictions(folder / PREDICTIONS, f"{PREDICTIONS} of {name}"), reports.get("metrics", {})
    right = float((found.predicted == found.actual).mean())
    if told and (told.get("n") != len(found.actual) or abs(told.get("accuracy", -1) - right) > _ROUNDING):
        raise DataError(
            f"{name}: reports/metrics.json and reports/{PREDICTIONS} are not of one model; `dvc checkout` or `dvc repro evaluate` "
            "brings them together"
        )
    params, outputs = read_lock(lock) if lock.exists() else ({}, {})
    return Side(name, found, reports, params, outputs)


def compare(base: Side, new: Side, polarity: Mapping[str, float], params: EvaluateParams, unseen: bool = False) -> dict[str, Any]:
    """What changed from ``base`` to ``new``: verdict, metrics, labels, slices, rows, size, speed, parameters, data.

    :param unseen: whether rows count only that neither model, nor a near-duplicate of theirs, was trained on.

    Only rows that both have with the same label count. The primary metric decides at 5 %; the p-values of all others, slices among them,
    are corrected for their number (Holm). A slice of few rows has its number of rows alone.

    :raises DataError: when the two have other labels, or no row in common that counts.
    """
    before, after = _in_common(base, new)
    if unseen:
        before, after = _unseen(before, after)
    sides = (_statistics(side, polarity, params.calibration_bins) for side in (after, before, after.pooled(before)))
    ours, theirs, pooled = sides
    found = differences(ours, theirs, pooled, before.sample(params))
    if params.primary not in found:
        raise DataError(f"evaluate.primary: {params.primary} is not defined on the {len(before.actual)} rows that both models have")
    masks = slices(before.table, params.slices)
    by_slice = dict(_by_slice(masks, before, after, polarity, params))
    family = {name: d for name, d in found.items() if name != params.primary} | by_slice
    ps = {**holm({name: d.p for name, d in family.items()}), params.primary: found[params.primary].p}
    once = np.ones((1, len(before.actual)))
    primary = found[params.primary]
    return {
        "base": base.name,
        "new": new.name,
        "rows": {"base": len(base.predictions.actual), "new": len(new.predictions.actual), "both": len(before.actual)},
        "primary": params.primary,
        "verdict": _verdict(params.primary, primary, primary.p),
        "rows_needed": rows_needed(primary, len(before.actual)),
        "metrics": {
            name: {"base": float(theirs[name](once)[0]), "new": float(ours[name](once)[0]), **_about(name, difference, ps[name])}
            for name, difference in found.items()
        },
        "slices": {
            name: {"rows": int(mask.sum())} | (_about(params.primary, by_slice[name], ps[name]) if name in by_slice else {})
            for name, mask in masks.items()
        },
        **_flips(before, after),
        "formats": _formats(base, new),
        "behaviour": _changed(*(dotted(side.reports.get("metrics", {}).get("behaviour", {})) for side in (base, new))),
        "behaviour_cases": {
            name: side.reports.get("metrics", {}).get("behaviour_cases", {}) for name, side in (("base", base), ("new", new))
        },
        "params": _changed(base.params, new.params),
        "data": _changed(
            *(_data(side, [path for path in _MADE_FROM if path in base.outputs and path in new.outputs]) for side in (base, new))
        ),
    }


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


def _unseen(before: Predictions, after: Predictions) -> tuple[Predictions, Predictions]:
    """The rows that leak from the train rows of neither; `prepare` has marked those whose near-duplicates stand in train."""
    leaks = zip(before.table["leak"].to_pylist(), after.table["leak"].to_pylist(), strict=True)
    kept = np.array([theirs is None and ours is None for theirs, ours in leaks])
    if not kept.any():
        raise DataError(f"all {len(kept)} test rows that both models have are near-duplicates of what one of them was trained on")
    return before.take(kept), after.take(kept)


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
    masks: Mapping[str, Mask], before: Predictions, after: Predictions, polarity: Mapping[str, float], params: EvaluateParams
) -> Iterator[tuple[str, Difference]]:
    """The difference in the primary metric on each slice that has rows enough."""
    for name, mask in masks.items():
        if mask.sum() >= params.min_slice_rows:
            old, new = before.take(mask), after.take(mask)
            sides = (side.statistics(polarity, params.calibration_bins)[params.primary] for side in (new, old, new.pooled(old)))
            ours, theirs, pooled = ({str(params.primary): statistic} for statistic in sides)
            if difference := differences(ours, theirs, pooled, old.sample(params)).get(params.primary):
                yield name, difference


def _verdict(metric: str, difference: Difference, p: float) -> str:
    if p >= ALPHA:
        return SAME
    return BETTER if (difference.value < 0) == (metric in LOWER_IS_BETTER) else WORSE


def _about(metric: str, difference: Difference, p: float) -> dict[str, Any]:
    """A difference in ``metric``, with its p-value as corrected."""
    limits = {"difference": difference.value, "low": difference.low, "high": difference.high}
    return {**limits, "p": p, "verdict": _verdict(metric, difference, p)}


def _flips(before: Predictions, after: Predictions) -> dict[str, Any]:
    """The rows that changed sides, and McNemar's test on them."""
    was_right, is_right = before.predicted == before.actual, after.predicted == after.actual
    fixed, broken = _rows(before, after, ~was_right & is_right), _rows(before, after, was_right & ~is_right)
    test = {"fixed": len(fixed), "broken": len(broken), "p": mcnemar(len(fixed), len(broken))}
    return {"mcnemar": test, "flips": {"fixed": fixed, "broken": broken}}


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


def _data(side: Side, paths: Sequence[str]) -> dict[str, Any]:
    """What the model was made from, of prepare's report, and the digests of some outputs."""
    prepared = side.reports.get("prepare", {})
    found = {f"rows of {split}": about.get("rows") for split, about in prepared.get("splits", {}).items()}
    found |= {f"rows of {corpus}": rows for corpus, rows in prepared.get("corpora", {}).items()}
    found |= {"backbone": prepared.get("backbone", {}).get("name"), "protocol": prepared.get("protocol")}
    return found | {f"digest of {path}": side.outputs[path] for path in paths}


def _changed(base: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    keys: Sequence[str] = [*base, *(key for key in new if key not in base)]
    return {key: {"base": base.get(key), "new": new.get(key)} for key in keys if base.get(key) != new.get(key)}
