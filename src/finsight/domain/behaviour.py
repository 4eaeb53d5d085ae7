"""Changes of a text that should leave its label alone, and templates that make many texts of one."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random

_SLOT = re.compile(r"\{(\w+)\}")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_FREE = re.compile(rf"(?<![\w.,-]){_NUMBER.pattern}(?![\w-])")  # no part of a word or a name
_LONG_WORD = re.compile(r"\b[a-z]{5,}\b")


def filled(templates: Sequence[str], slots: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """The templates with each combination of words for the slots that they name; those of one tuple have the same words.

    :raises KeyError: for a slot without words.
    """
    names = sorted({name for template in templates for name in _SLOT.findall(template)})
    for words in itertools.product(*(slots[name] for name in names)):
        yield tuple(_with(template, dict(zip(names, words, strict=True))) for template in templates)


def _with(template: str, words: Mapping[str, str]) -> str:
    return _SLOT.sub(lambda found: words[found[1]], template)


def _typo(text: str, random: Random) -> str:
    """Two letters within a word exchanged, as fingers do."""
    words = list(_LONG_WORD.finditer(text))
    if not words:
        return text
    word = random.choice(words)
    at = word.start() + random.randrange(1, len(word[0]) - 2)
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def _numbers(text: str, random: Random) -> str:
    """Another number in the place of a text's only one, of as many digits.

    Of several the meaning may hang on which is larger, and a year may tell what is past: those stay.
    """
    found = _NUMBER.findall(text)
    if len(found) != 1 or not _FREE.search(text) or re.fullmatch(r"(?:19|20)\d\d", found[0]):
        return text
    shift = random.randrange(1, 9)
    return _NUMBER.sub(lambda n: re.sub(r"\d", lambda d: str((int(d[0]) + shift - 1) % 9 + 1), n[0]), text)


CHANGES: dict[str, Callable[[str, Random], str]] = {
    "upper": lambda text, _: text.upper(),
    "lower": lambda text, _: text.lower(),
    "typo": _typo,
    "prefix": lambda text, random: f"{random.choice(('UPDATE 1-', 'BRIEF-', '(Reuters) - ', 'RT @newswire: '))}{text}",
    "numbers": _numbers,
}
"""Changes that leave a text's meaning alone; one that finds nothing to change returns the text."""
