"""The block for params.yaml that fits a corpus, as text to paste, and what a person should see before pasting it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from finsight.adapters.sniff import Look, look
from finsight.errors import FinsightError
from finsight.params.corpora import AnyCorpus
from finsight.pipeline.corpus_facts import Facts, as_lines, cut, gather
from finsight.ports import CorpusReader

OpenReader = Callable[[str, AnyCorpus], CorpusReader]
POLAR = {"negative", "neutral", "positive"}
SYNONYMS = {
    "negative": "neg negative bearish bear",
    "neutral": "neu neut neutral",
    "positive": "pos positive bullish bull",
}
THRESHOLDS = {"negative": -0.1, "neutral": 0.1, "positive": 1.0}
TWITTER = {"0": "negative", "1": "positive", "2": "neutral"}
# Name in a corpus's name, files or source → what the literature calls it, its licence.
KNOWN = {
    r"phrase_?bank": ("phrasebank", "CC-BY-NC-SA-3.0"),
    r"fiqa": ("fiqa", "UNKNOWN"),
    r"twitter.*financ|financ.*twitter": ("twitter-financial-news", "MIT"),
}


def describe(name: str, corpus: AnyCorpus, reader: CorpusReader, seen: Look | None = None) -> tuple[list[str], Facts]:
    """What a corpus holds, read as ``corpus`` says, as lines for a terminal; and as numbers.

    :raises DataError: when it can't be read.
    """
    from finsight.pipeline.mojibake import damaged, repair

    facts = gather(reader.read(), damaged, repair)
    encodings: Mapping[str, str] = reader.facts().get("encodings", {})
    seen = seen or Look({}, list(encodings))
    lines = [f"{name}: {corpus.path}, format {corpus.format}"]
    if seen.files:
        lines.append(f"files       {_listed(seen.files)}")
    if seen.columns:
        lines.append(f"columns     {_listed(list(map(str, seen.columns)))}")
    if encodings:
        lines.append(f"encoding    {', '.join(sorted(set(encodings.values())))}")
    return [*lines, *as_lines(facts)], facts


def propose(name: str, folder: Path, labels: Sequence[str], source: str, open_reader: OpenReader) -> str:
    """What ``folder`` holds, the block for params.yaml that reads it, and the command that uses it.

    :param labels: the project's own.
    :param source: where the corpus came from; it may say what it is.
    """
    try:
        seen = look(name, folder)
    except FinsightError as error:
        return f"No block is proposed: {error}\nSee docs/data.md for what can be read."
    params, remarks = dict(seen.params), dict(seen.remarks)
    if params["format"] == "fiqa" or "score" in params:
        params["thresholds"] = _thresholds(labels)
        remarks.setdefault("thresholds", "label: the highest score that still gets it; yours to decide")
    known = _known(" ".join([name, source, *seen.files]), params)
    lines: list[str] = []
    facts = Facts()
    try:
        corpus: AnyCorpus = TypeAdapter[AnyCorpus](AnyCorpus).validate_python({**params, "path": folder.as_posix(), "license": "UNKNOWN"})
        lines, facts = describe(name, corpus, open_reader(name, corpus), seen)
    except (FinsightError, ValidationError) as error:
        lines = [f"files       {_listed(seen.files)}", f"columns     {_listed(list(map(str, seen.columns)))}"]
        lines.append(f"It can't be read yet: {error}" if isinstance(error, FinsightError) else "It can't be read yet.")
    if facts.repairable:
        params["repair_mojibake"] = True
        remarks["repair_mojibake"] = f"changes {facts.repairable:,} rows"
    if seen.columns and "text" in params:
        remarks.setdefault("text", f"columns here: {_listed(list(map(str, seen.columns)))}")
    block = [f"  {name}:", f"    path: {folder.as_posix()}", *_lines(params, remarks)]
    if "thresholds" not in params:
        block += label_map(facts.labels, labels, TWITTER if known[0] == "twitter-financial-news" else {})
    if known[0]:
        block.append(f"    known_as: {known[0]}")
    block.append(f"    license: {known[1]}{'   # its SPDX identifier' if known[1] == 'UNKNOWN' else '   # as published; check'}")
    use = f"Then: dvc exp run -S 'ingest.corpora=[{name}]'"
    return "\n".join([*lines, "", "Under corpora in params.yaml, unless it is there:", "", *block, "", use])


def label_map(found: Mapping[str, int], labels: Sequence[str], published: Mapping[str, str]) -> list[str]:
    """The lines that take the labels of a file to ``labels``; what is not certain is left to a person, as a comment.

    :param found: labels of the file, and how often each occurs.
    :param published: what its labels mean by its authors' word; used where it explains all of them.
    """
    if all(label in labels for label in found):
        return []
    if not set(found) <= set(published):
        published = {}
    pairs: list[str] = []
    open_: list[str] = []
    for label, n in sorted(found.items(), key=lambda item: (-item[1], item[0]))[:50]:
        if label in labels:
            continue
        to = published.get(label) if published.get(label) in labels else _same(label, labels)
        rows = f"# {n:,} rows"
        if to is None:
            open_.append(f"# {_scalar(label)}: ?   {rows}")
        else:
            pairs.append(f"{_scalar(label)}: {_scalar(to)}   {rows}")
    head = ["    label_map:"] if pairs else []
    if open_:
        reason = f"decide what each means: one of {', '.join(labels)}, or nothing (`x:`) to leave its rows out"
        head += [f"    # {reason}"] if pairs else ["    # label_map:", f"    #   {reason}"]
    indented = [f"      {line}" if pairs else f"    #   {line.removeprefix('# ')}" for line in open_]
    return [*head, *(f"      {line}" for line in pairs), *indented]


def _same(label: str, labels: Sequence[str]) -> str | None:
    """The one of ``labels`` that differs in case alone, or that a usual synonym stands for."""
    for own in labels:
        if own.lower() == label.lower():
            return own
    if set(labels) == POLAR:
        return next((own for own, words in SYNONYMS.items() if label.lower() in words.split()), None)
    return None


def _thresholds(labels: Sequence[str]) -> dict[str, float]:
    """Usual limits for scores in [-1, 1]; for other labels than negative, neutral, positive, of equal width."""
    if set(labels) == POLAR:
        return THRESHOLDS
    return {label: round(-1 + 2 * (i + 1) / len(labels), 3) for i, label in enumerate(labels)}


def _known(words: str, params: Mapping[str, Any]) -> tuple[str | None, str]:
    for pattern, (known_as, license_) in KNOWN.items():
        if params["format"] == known_as or re.search(pattern, words.lower()):
            return known_as, license_
    return None, "UNKNOWN"


def _lines(params: Mapping[str, Any], remarks: Mapping[str, str]) -> list[str]:
    lines = [f"    {key}: {_value(value)}{f'   # {remarks[key]}' if key in remarks else ''}" for key, value in params.items()]
    return lines + [f"    # {key}:   # {remark}" for key, remark in remarks.items() if key not in params]


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(k)}: {_value(v)}" for k, v in value.items()) + "}"
    return _scalar(value) if isinstance(value, str) else json.dumps(value)


def _scalar(value: str) -> str:
    """A string in YAML: plain where that can't be read as anything else; JSON's strings are YAML's too."""
    plain = re.fullmatch(r"[A-Za-z_][\w./-]*( [\w./-]+)*", value) and value.lower() not in (
        "true",
        "false",
        "null",
        "yes",
        "no",
        "on",
        "off",
    )
    # Whole numbers stay bare: readers match them with the file's own.
    return value if plain or re.fullmatch(r"0|-?[1-9]\d*", value) else json.dumps(value, ensure_ascii=True)


def _listed(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(cut(name, 60) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
