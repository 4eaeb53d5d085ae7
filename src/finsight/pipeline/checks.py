"""What is expected of a corpus: each check is one measured number, its limits, and a sentence for the person who reads the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from finsight.domain.drift import index_drift, word_drift
from finsight.params.validate import ValidateParams
from finsight.pipeline.noise import Suspects
from finsight.pipeline.profile import NAMED, Profile, Profiles
from finsight.pipeline.raw import COLUMNS

Severity = Literal["critical", "warning", "info"]


@dataclass(frozen=True)
class Check:
    """One expectation.

    :param measure: what is measured, with its unit; unique in a suite.
    :param value: a number, or for ``one_of`` a word.
    :param sentence: what must be so.
    :param severity: what ``info`` measures has no limits; it is told.
    :param low: least value that is well; ``high`` likewise.
    :param found: which rows or labels are meant, where that is known.
    """

    measure: str
    value: float | str
    sentence: str
    severity: Severity
    low: float | None = None
    high: float | None = None
    one_of: tuple[str, ...] = ()
    found: str = ""


def column_checks(types: Mapping[str, str]) -> list[Check]:
    """The columns that ingest promises, and nothing but strings beside them."""

    def check(name: str, expected: str) -> Check:
        found = types.get(name, "missing")
        return Check(f"column {name}", found, f"column {name} holds {expected}", "critical", one_of=(expected,), found=found)

    return [*(check(*column) for column in COLUMNS.items()), *(check(name, "string") for name in types if name not in COLUMNS)]


def merged_checks(profiles: Profiles, suspects: Suspects, params: ValidateParams) -> list[Check]:
    """What all corpora together must be: enough rows of each label, and no row twice."""
    merged = profiles.merged
    rarest = [f"{label} has {n}" for label, n in merged.labels.items() if n < params.min_rows_per_label]
    checks = [
        Check("rows", merged.rows, f"there are at least {params.min_rows} rows", "critical", low=params.min_rows),
        Check(
            "rows of the rarest label",
            min(merged.labels.values()),
            f"each label has at least {params.min_rows_per_label} rows",
            "critical",
            low=params.min_rows_per_label,
            found=", ".join(rarest),
        ),
        _none(merged, profiles.ids, "unnamed", "ids that occur twice", "each row has its own id"),
    ]
    if len(profiles.corpora) > 1:
        checks += corpus_checks(merged, profiles.ids, params, "stand earlier in this or another corpus")
    reason = suspects.skipped or ("" if suspects.examined else "validate.noise_sample is 0")
    examined = "this many labels were compared with what a simple model expects"
    checks.append(Check("labels examined for errors", suspects.examined, examined, "info", found=reason))
    return checks


def corpus_checks(
    profile: Profile, ids: Mapping[int, str], params: ValidateParams, repeats: str = "stand earlier in their corpus"
) -> list[Check]:
    """What each row of a corpus must be, and how many may differ.

    :param repeats: what is said of texts that occur more than once.
    """
    labels = ", ".join(profile.labels)
    longest = f"no text is longer than {params.max_characters} characters"
    too_long = _rows(profile, ids, "long")
    return [
        _none(profile, ids, "missing", "rows without a text", "each row has a text"),
        _none(profile, ids, "empty", "empty texts", "no text is empty"),
        _none(profile, ids, "unknown", "rows with another label", f"each label is one of {labels}"),
        _none(profile, ids, "unhashed", "rows without a hash", "each row has the hash of its text, 32 hexadecimal digits"),
        Check("longest text, in characters", profile.longest, longest, "critical", high=params.max_characters, found=too_long),
        _none(profile, ids, "short", "short texts", f"no text is shorter than {params.min_characters} characters", "warning"),
        *_label_shares(profile, params),
        *_equal_texts(profile, ids, params, repeats),
        _at_most(
            profile, ids, "damaged", "texts that a wrong encoding damaged", "bear marks of a wrong encoding", params.max_damaged_share
        ),
        *_foreign(profile, ids, params),
        _known(profile, "agreement", "this share of the rows says how far annotators agreed"),
        _known(profile, "date", "this share of the rows bears a date"),
    ]


def drift(profile: Profile, before: Mapping[str, Any] | None) -> dict[str, float]:
    """How far a corpus moved from its validated version; empty where there is none, or none whose histograms are alike."""
    if not before or any(len(before[name]) != len(getattr(profile, name)) for name in ("lengths", "words")):
        return {}
    names = sorted({*before["labels"], *profile.labels})
    return {
        "labels": index_drift([before["labels"].get(n, 0) for n in names], [profile.labels.get(n, 0) for n in names]),
        "lengths": index_drift(before["lengths"], profile.lengths.tolist()),
        "words": word_drift(before["words"], profile.words.tolist()),
    }


def drift_checks(moved: Mapping[str, float], params: ValidateParams) -> list[Check]:
    """That a corpus is like its validated version, where there is one."""
    nothing = "none: `finsight corpus approve` makes this version the one that later ones are compared with"
    there = "this many validated versions are compared with"
    checks = [Check("validated versions", int(bool(moved)), there, "info", found="" if moved else nothing)]
    kinds = (
        ("labels", "label shares", "PSI", params.max_label_drift),
        ("lengths", "text lengths", "PSI", params.max_length_drift),
        ("words", "words", "Jensen-Shannon distance", params.max_word_drift),
    )
    accept = "look at what changed; `finsight corpus approve` accepts it"
    for kind, what, how, limit in kinds if moved else ():
        sentence = f"the {what} are like those of the validated version ({how} at most {limit:g})"
        checks.append(Check(f"drift of the {what} ({how})", moved[kind], sentence, "warning", high=limit, found=accept))
    return checks


def _label_shares(profile: Profile, params: ValidateParams) -> Iterable[Check]:
    shares = {label: n / max(1, profile.rows) for label, n in profile.labels.items()}
    most, least = max(shares, key=shares.__getitem__), min(shares, key=shares.__getitem__)
    above = f"no label has more than {_percent(params.max_label_share)} of the rows"
    below = f"no label has less than {_percent(params.min_label_share)} of the rows"
    yield Check("share of the most frequent label", shares[most], above, "warning", high=params.max_label_share, found=most)
    yield Check("share of the rarest label", shares[least], below, "warning", low=params.min_label_share, found=least)


def _equal_texts(profile: Profile, ids: Mapping[int, str], params: ValidateParams, where: str) -> Iterable[Check]:
    yield _at_most(profile, ids, "repeated", "repeated texts", where, params.max_duplicate_share)
    yield _at_most(profile, ids, "conflicting", "texts with two labels", "also stand with another label", params.max_conflicting_share)


def _foreign(profile: Profile, ids: Mapping[int, str], params: ValidateParams) -> Iterable[Check]:
    if params.language:
        sentence = f"at most {_percent(params.max_foreign_share)} of the texts are in another language than {params.language}"
        found = f"{profile.counts.get('foreign', 0)} of {profile.sampled} texts looked at{_names(profile, ids, 'foreign')}"
        measure = "share of texts in another language"
        yield Check(measure, profile.foreign_share, sentence, "warning", high=params.max_foreign_share, found=found)


def _none(profile: Profile, ids: Mapping[int, str], what: str, measure: str, sentence: str, severity: Severity = "critical") -> Check:
    return Check(measure, profile.counts.get(what, 0), sentence, severity, high=0, found=_rows(profile, ids, what))


def _at_most(profile: Profile, ids: Mapping[int, str], what: str, measure: str, predicate: str, limit: float) -> Check:
    sentence = f"at most {_percent(limit)} of the texts {predicate}"
    return Check(f"share of {measure}", profile.share(what), sentence, "warning", high=limit, found=_rows(profile, ids, what))


def _known(profile: Profile, column: str, sentence: str) -> Check:
    return Check(f"share of rows with {column}", profile.known[column] / max(1, profile.rows), sentence, "info")


def _percent(share: float) -> str:
    return f"{100 * share:g}%"


def _rows(profile: Profile, ids: Mapping[int, str], what: str) -> str:
    n = profile.counts.get(what, 0)
    return f"{n} of {profile.rows} rows{_names(profile, ids, what)}" if n else ""


def _names(profile: Profile, ids: Mapping[int, str], what: str) -> str:
    named: Sequence[str] = [ids[row] for row in profile.first.get(what, [])[:NAMED]]
    more = profile.counts.get(what, 0) - len(named)
    return f" ({', '.join(named)}{f' and {more} more' if more else ''})" if named else ""
