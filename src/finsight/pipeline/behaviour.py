"""Behavioural tests: what a model has to get right whatever its accuracy.

Source: Ribeiro et al. 2020, "Beyond Accuracy: Behavioral Testing of NLP Models with CheckList".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from finsight.domain.behaviour import CHANGES, filled
from finsight.domain.metrics import Floats
from finsight.errors import DataError
from finsight.pipeline.cells import plain
from finsight.pipeline.explain import Probs

COLUMNS = ("test", "kind", "expected", "got", "text", "beside")


class Test(BaseModel):
    """One entry under ``tests``; several of one name are counted together."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    kind: Literal["minimum", "invariance", "direction"]
    label: str | None = None
    texts: Annotated[list[str], Field(min_length=1)] | None = None
    change: Literal["upper", "lower", "typo", "prefix", "numbers"] | None = None
    pairs: Annotated[list[Annotated[list[str], Field(min_length=2, max_length=2)]], Field(min_length=1)] | None = None
    expect: Literal["up", "down"] | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        given = {name for name in ("label", "texts", "change", "pairs", "expect") if getattr(self, name) is not None}
        allowed = {"minimum": [{"label", "texts"}], "invariance": [{"texts"}, {"change"}], "direction": [{"pairs", "expect"}]}[self.kind]
        if given not in allowed:
            raise ValueError(f"{self.name}: {self.kind} needs {' or '.join(' and '.join(sorted(a)) for a in allowed)}, got {sorted(given)}")
        return self


class Suite(BaseModel):
    """A file of tests."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    slots: dict[str, Annotated[list[str], Field(min_length=1)]] = {}
    tests: list[Test]


def read_suite(folder: Path) -> Suite:
    """All files of the folder as one suite; a slot of one file serves the others too.

    :raises DataError: when a file is no suite, or a template names a slot that no file has.
    """
    slots: dict[str, list[str]] = {}
    tests: list[Test] = []
    if not (files := sorted(path for path in folder.glob("*") if path.suffix in (".yaml", ".yml"))):
        raise DataError(
            f"{folder}: no behavioural tests there, no file ends in .yaml; `git checkout {folder}` brings those of the project back"
        )
    for path in files:
        try:
            suite = Suite.model_validate(YAML(typ="safe").load(path.read_text(encoding="utf-8")))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the file"
            raise DataError(f"{path}: {place}: {first['msg'].removeprefix('Value error, ')}") from None
        except (YAMLError, ValueError) as error:  # what is no UTF-8, and no date, among them
            raise DataError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
        for name, words in suite.slots.items():
            if slots.setdefault(name, words) != words:
                raise DataError(f"{path}: the slot {name!r} has other words in another file; give one of them another name")
        tests += suite.tests
    for test in tests:
        try:
            for templates in [*([text] for text in test.texts or []), *(test.pairs or [])]:
                made = len(list(filled(templates, slots)))
                if test.kind == "invariance" and made < 2:
                    raise DataError(f"{folder}: test {test.name!r}: {templates[0]!r} makes one text only; name a slot of two words or more")
        except KeyError as missing:
            raise DataError(f"{folder}: test {test.name!r} names the slot {missing}, which is not under slots") from None
    return Suite(slots=slots, tests=tests)


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to look at: a text alone, or beside the one that it is compared with."""

    test: Test
    text: str
    beside: str | None = None


@dataclass(frozen=True)
class Behaviour:
    """How often each test failed, and the cases that did.

    :param rates: share of a test's cases, by its name.
    :param cases: how many it had.
    :param failures: rows in the order of ``COLUMNS``.
    :param left_out: names of tests that ask for nothing but what the model does not have.
    """

    rates: dict[str, float]
    cases: dict[str, int]
    failures: list[dict[str, str]]
    left_out: list[str]


def behave(
    probs: Probs, suite: Suite, labels: Sequence[str], polarity: Mapping[str, float], rows: Sequence[str], most: int, seed: int
) -> Behaviour:
    """Ask a model everything in the suite.

    :param probs: maps texts to probabilities (n, k).
    :param rows: texts of the test set, of which at most ``most`` are changed by each test that changes rows.
    """
    tests = [t for t in suite.tests if (t.label in labels if t.label else t.kind != "direction" or polarity)]
    left_out = sorted({t.name for t in suite.tests} - {t.name for t in tests})
    cases = [case for test in tests for case in _cases(test, suite.slots, rows, most, seed)]
    texts = list(dict.fromkeys(text for case in cases for text in (case.text, case.beside) if text is not None))
    asked = dict(zip(texts, probs(texts), strict=True)) if texts else {}
    place = np.array([polarity[label] for label in labels]) if polarity else np.zeros(len(labels))
    counts: dict[str, list[int]] = {}
    failures = []
    for case in cases:
        expected, got = _expected_and_got(case, asked, labels, place)
        failed = expected != got
        counts.setdefault(case.test.name, []).append(failed)
        if failed:
            row = (case.test.name, case.test.kind, expected, got, plain(case.text), plain(case.beside or ""))
            failures.append(dict(zip(COLUMNS, row, strict=True)))
    rates = {name: sum(found) / len(found) for name, found in counts.items()}
    return Behaviour(rates, {name: len(found) for name, found in counts.items()}, failures, left_out)


def _cases(test: Test, slots: Mapping[str, Sequence[str]], rows: Sequence[str], most: int, seed: int) -> Iterator[Case]:
    if test.change:
        # Each row has chances of its own: another row more or less does not change what the others become.
        chosen = Random(seed).sample(rows, min(most, len(rows)))  # noqa: S311 - no secret
        for text in chosen:
            own = Random(hashlib.sha256(f"{seed}/{test.change}/{text}".encode()).digest())  # noqa: S311
            if (changed := CHANGES[test.change](text, own)) != text:
                yield Case(test, changed, text)
    elif test.kind == "direction":
        for pair in test.pairs or ():
            for before, after in filled(pair, slots):
                yield Case(test, after, before)
    else:
        for template in test.texts or ():
            found = [text for (text,) in filled([template], slots)]
            if test.kind == "minimum":
                yield from (Case(test, text) for text in found)
            else:
                yield from (Case(test, text, found[0]) for text in found[1:])


def _expected_and_got(case: Case, asked: Mapping[str, Floats], labels: Sequence[str], place: Floats) -> tuple[str, str]:
    """What the case asks for and what the model does, in the same words where it passes."""
    answer = asked[case.text]
    if case.test.kind == "direction":
        moved = float(answer @ place) - float(asked[str(case.beside)] @ place)
        return str(case.test.expect), "up" if moved > 0 else "down" if moved < 0 else "the same"
    got = labels[int(answer.argmax())]
    return (str(case.test.label) if case.beside is None else labels[int(asked[case.beside].argmax())]), got
