"""Validate: the raw corpus is measured once; the numbers meet Great Expectations suites, and doubtful labels are listed for people."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from finsight.errors import DataError
from finsight.files import atomic_folder, write_json
from finsight.params.validate import ValidateParams
from finsight.pipeline.checks import Check, column_checks, corpus_checks, drift, drift_checks, merged_checks
from finsight.pipeline.corrections import read_corrections
from finsight.pipeline.data_docs import open_docs, run_suite
from finsight.pipeline.front_page import finish_docs
from finsight.pipeline.noise import Suspects, find_suspects, write_suspects
from finsight.pipeline.profile import Profile, Profiles, read_profiles
from finsight.pipeline.raw import Rows, column_types, take_rows
from finsight.pipeline.validated import merged, read_validated, write_validated

Outcome = list[tuple[str, Check, bool]]
"""Suite, check, whether it holds."""


def validate(
    corpus: Path,
    validated: Path,
    labels: Sequence[str],
    params: ValidateParams,
    *,
    report: Path,
    docs: Path,
    profile: Path,
    suspects: Path,
    corrections: Path,
) -> dict[str, Any]:
    """Check ``corpus``; write ``report``, ``docs`` and ``suspects`` whatever the outcome, ``profile`` if no critical check fails.

    :param validated: the profiles of the version that this one is compared with, as `finsight corpus approve` writes them.
    :param corrections: labels that a person has looked at; they are no suspects any more.
    :raises DataError: when a critical check fails, with the rows named.
    """
    suites = {"columns of the corpus": column_checks(column_types(corpus))}
    content: dict[str, Any] = {}
    found, profiles = Suspects(), None
    if all(check.value in check.one_of for check in suites["columns of the corpus"]):
        before = read_validated(validated)
        profiles = read_profiles(corpus, labels, params)
        if params.noise_sample:
            found = _examine(corpus, profiles.distinct[: params.noise_sample], labels, read_corrections(corrections, labels).labels)
        moved = {name: drift(one, before.get(name)) for name, one in profiles.corpora.items()}
        together = drift(profiles.merged, merged([before[name] for name in profiles.corpora if name in before]))
        suites["all corpora"] = merged_checks(profiles, found, params)
        if len(profiles.corpora) > 1:
            suites["all corpora"] += drift_checks(together, params)
        for name, one in profiles.corpora.items():
            suites[f"corpus {name}"] = [*corpus_checks(one, profiles.ids, params), *drift_checks(moved[name], params)]
        content = _numbers(profiles, found, moved, together)
    with atomic_folder(docs) as partial:
        context = open_docs(partial)
        outcome = [
            (suite, check, held)
            for suite, checks in suites.items()
            for check, held in zip(checks, run_suite(context, suite, checks), strict=True)
        ]
        finish_docs(partial, outcome)
    content = _count(outcome) | content | {"expectations": {f"{s}: {c.sentence}": _say(c, held) for s, c, held in outcome}}
    write_suspects(suspects, found)
    write_json(report, content)
    if content["critical"] or profiles is None:
        what = "; ".join(f"{s}: {c.sentence}: {_got(c)}" for s, c, held in outcome if not held and c.severity == "critical")
        raise DataError(f"{corpus}: {what}; correct the rows or the limits under validate in params.yaml, see {docs}/index.html")
    write_validated(profile, {name: one.kept() for name, one in profiles.corpora.items()})
    return content


def _examine(corpus: Path, rows: Rows, labels: Sequence[str], seen: Container[str]) -> Suspects:
    found = find_suspects(take_rows(corpus, sorted(rows.tolist()), ["id", "hash", "text", "label"]), labels)
    return replace(found, rows=[row for row in found.rows if row[0] not in seen])


def _numbers(
    profiles: Profiles, suspects: Suspects, moved: Mapping[str, Mapping[str, float]], together: Mapping[str, float]
) -> dict[str, Any]:
    """The report's numbers, under keys that stay, so that `dvc metrics diff` shows what a change of the data did."""

    def numbers(one: Profile) -> dict[str, Any]:
        counts = {what: one.counts.get(what, 0) for what in ("repeated", "conflicting", "damaged")}
        return {"rows": one.rows, **counts, "foreign_share": round(one.foreign_share, 6), "labels": one.labels}

    def rounded(moved: Mapping[str, float]) -> dict[str, float]:
        return {kind: round(distance, 6) for kind, distance in moved.items()}

    by_name = {name: {**numbers(one), "longest": one.longest, "drift": rounded(moved[name])} for name, one in profiles.corpora.items()}
    doubtful = {"examined": suspects.examined, "suspects": len(suspects.rows)}
    return {**numbers(profiles.merged), "drift": rounded(together), **doubtful, "corpora": by_name}


def _count(outcome: Outcome) -> dict[str, int]:
    return {severity: sum(not held and c.severity == severity for _, c, held in outcome) for severity in ("critical", "warning")}


def _say(check: Check, held: bool) -> str:
    if not held:
        return f"{check.severity}: {_got(check)}"
    return f"ok, {check.found}" if check.severity == "info" and check.found else "ok"


def _got(check: Check) -> str:
    value = check.value if isinstance(check.value, str) else f"{check.value:.4g}" if isinstance(check.value, float) else str(check.value)
    return f"got {value}" + (f", {check.found}" if check.found and check.found != value else "")
