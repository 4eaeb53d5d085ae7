"""What a comparison says to the gates of params.yaml."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from finsight.domain.gates import outside
from finsight.domain.scores import LOWER_IS_BETTER
from finsight.domain.significance import BETTER, SAME, WORSE
from finsight.params.file import dotted
from finsight.params.gates import GateParams
from finsight.pipeline.compare import Side

_MANY = 1_000_000  # rows that nobody labels


def failures(content: Mapping[str, Any], new: Side, gates: GateParams) -> list[str]:
    """What keeps the new model from passing, in words; empty where nothing does.

    :param content: of :func:`compare`.
    """
    verdict, primary = content["verdict"], content["primary"]
    found = []
    if (gates.primary == "better" and verdict != BETTER) or (gates.primary == "not worse" and verdict == WORSE):
        found.append(f"gates.primary: {primary} has to be {gates.primary}, it is: {verdict}{_rows_in_words(content)}")
    exported = {f"export.{name}": value for name, value in dotted(new.reports.get("export", {})).items()}
    measured = dotted(new.reports.get("metrics", {})) | exported
    found += [f"gates.at_most.{problem}" for problem in outside(measured, gates.at_most)]
    found += [f"gates.at_least.{problem}" for problem in outside(measured, {}, gates.at_least)]
    if gates.max_bundle_growth is not None:
        found += _grown(content["formats"], gates.max_bundle_growth)
    return found


def _grown(formats: Mapping[str, Any], limit: float) -> Iterator[str]:
    sizes = {name: row["bytes"] for name, row in formats.items() if "bytes" in row}
    if not sizes:
        yield "gates.max_bundle_growth: there is no format of the bundle that both have (reports/export.json)"
    for name, size in sizes.items():
        if size["new"] > (1 + limit) * size["base"]:
            yield f"gates.max_bundle_growth: {name} is {size['new'] / size['base'] - 1:.0%} larger, the limit is {limit:.0%}"


def undecided(content: Mapping[str, Any], gates: GateParams, failed: Sequence[str]) -> bool:
    """Whether all that the new model lacks is rows to show that it is better: it seems so, and more of them could tell."""
    if gates.primary != "better" or content["verdict"] != SAME or len(failed) != 1:
        return False
    seems_better = (content["metrics"][content["primary"]]["difference"] < 0) == (content["primary"] in LOWER_IS_BETTER)
    return seems_better and content["rows_needed"] is not None


def _rows_in_words(content: Mapping[str, Any]) -> str:
    return f" ({tell(content)})" if tell(content) else ""


def tell(content: Mapping[str, Any]) -> str:
    """How many rows would show whether the difference is real, in words; nothing where it is plain, or nil."""
    n = content["rows_needed"]
    if content["verdict"] != SAME or n is None:
        return ""
    return f"about {n:,} test rows would tell" if n < _MANY else f"more than {_MANY:,} test rows would be needed to tell"
