"""Whether a model that was made again is the one that it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finsight.bundle import bundle_digest, read_bundle
from finsight.domain import machine
from finsight.files import read_json
from finsight.pipeline.evidence import Evidence
from finsight.pipeline.provenance import TRACED, resolved, subject


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What came of it.

    :param rows: what is compared, what it was, what it is now.
    :param notes: what differs about the machine.
    :param problem: why it counts as not reproduced; empty where it counts.
    """

    rows: list[tuple[str, str, str]]
    notes: list[str]
    problem: str
    verdict: str


def judge(content: Mapping[str, Any], then: Path, made: Evidence) -> Reproduction:
    """Compare what was made again with what a statement says.

    In strict determinism the bundle has to be the same, byte for byte, on the same type of processor with the same packages. Elsewhere
    floating point differs, and accuracy and macro-F1 have to lie within the 95 % intervals that they had.

    :param then: reports/metrics.json as it was.
    """
    rows = [("bundle", subject(content)[:24], bundle_digest(made.bundle)[:24])]
    lock, entries = made.locked(), resolved(content)
    rows += [(path, entries[path]["digest"]["dvcMd5"][:24], lock[path]["md5"][:24]) for path in TRACED if path in entries and path in lock]
    was, now = content["predicate"]["finsight_metrics"], read_bundle(made.bundle).metrics
    rows += [(name, f"{value:.6f}", f"{now[name]:.6f}") for name, value in was.items() if name in now]
    notes = machine.differences(content["predicate"]["buildDefinition"]["internalParameters"]["environment"], made.report("environment"))
    if rows[0][1] == rows[0][2]:
        return Reproduction(rows, notes, "", "reproduced byte for byte")
    strict = content["predicate"]["buildDefinition"]["externalParameters"]["params"]["train"]["determinism"] == "strict"
    if strict and not notes:
        return Reproduction(rows, notes, "not reproduced: the bundle differs, with strict determinism, the same processor and packages", "")
    before = read_json(then, "dvc repro evaluate")
    outside = [
        name for name in ("accuracy", "macro_f1") if name in now and not before[f"{name}_low"] <= now[name] <= before[f"{name}_high"]
    ]
    if outside:
        return Reproduction(rows, notes, f"not reproduced: {' and '.join(outside)} outside the 95 % interval that it had", "")
    why = "on another machine" if notes else "without strict determinism"
    return Reproduction(rows, notes, "", f"reproduced {why}: not byte for byte, its metrics are within the intervals that they had")
