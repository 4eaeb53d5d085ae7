"""Texts that were decoded wrongly once: told from sound ones, and put right where that is certain.

Two kinds. Those that a codec can undo (``Ã¤`` for ``ä``) are ftfy's. The Financial PhraseBank has its own: UTF-8 that was read as
cp850, whose box characters were then flattened (``├`` to ``+``, ``┬`` to ``-``, ``╝`` to ``+``), so that no codec undoes it:
``P+ñrnu`` for ``Pärnu``. The rules below undo the flattened pairs, only where the outcome stands as a letter stands in a word.
"""

from __future__ import annotations

import re

import ftfy
from ftfy.badness import is_bad

# After + (C3): what a continuation byte looks like in cp850. Left out are those whose outcome hardly occurs (Î, Ð, ÷), whose pair is
# half of a character that was damaged twice (é for the Â of Â£), and those that words begin with (+über, +études).
_CAPITALS = {seen: (b"\xc3" + seen.encode("cp850")).decode() for seen in "àäûëÿòô£"}
_SMALL = {seen: (b"\xc3" + seen.encode("cp850")).decode() for seen in "áíúñÑÂÁ"}
_SYMBOLS = {seen: (b"\xc3" + seen.encode("cp850")).decode() for seen in "óªº¿®¬½¼¡©"}
_LETTER, _SECOND = r"[^\W\d_]", "[" + "".join({**_CAPITALS, **_SMALL, **_SYMBOLS}) + "]"
_AFTER_LETTER = rf"(?:(?<={_LETTER})|(?<=\+{_SECOND}))"

_RULES: list[tuple[re.Pattern[str], dict[str, str] | str]] = [
    (re.compile(r"\+óEUR TM"), "’"),
    (re.compile(r"\+ó\s+x201a -¼"), "€"),
    # A capital begins a word or stands among capitals: Bank of +àland, TYRV+ä+äN.
    (re.compile(rf"(?<![\da-zß-ÿ+])\+([{''.join(_CAPITALS)}])(?={_LETTER}|\+{_SECOND})"), _CAPITALS),
    (re.compile(rf"(?<=\+[{''.join(_CAPITALS)}])\+([{''.join(_CAPITALS)}])(?={_LETTER})"), _CAPITALS),
    # A small letter goes on with a word: L+ñnnen, W+ñrtsil+ñ, +àm+Ñl; where it looks like a symbol, only within one, for Disney+®.
    (re.compile(rf"{_AFTER_LETTER}\+([{''.join(_SMALL)}])"), _SMALL),
    (re.compile(rf"{_AFTER_LETTER}\+([{''.join(_SYMBOLS)}])(?=[a-zß-ÿ]|\+{_SECOND})"), _SYMBOLS),
    # Of ü both bytes became +: G++nter. C++ and A++ are words.
    (re.compile(rf"(?<={_LETTER})(?<!\b[AC])\+\+(?=[a-zß-ÿ]{{2}})"), "ü"),
    # After - (C2) come signs that stand alone.
    (re.compile(r"-¦(?= s\b)"), "´"),
    (re.compile(r"(?<=\d)-á(?=\d)"), "\xa0"),
    (re.compile(r"(?<= )-®(?= )"), "©"),
    (re.compile(r"(?<= )-«(?= )(?!.*»)"), "®"),
    (re.compile(r"(?<= )-Á(?=[lgmsFAVW]\b)"), "µ"),
]
# Damage beyond repair: a lost character, C1 controls, half of a character that was damaged twice.
_LOST = re.compile(r"[\ufffd\x80-\x9f]|\+[óéâ](?=[\s?]|$)")


def damaged(text: str) -> bool:
    """Whether a text bears the marks of a wrong decoding: pairs like ``Ã¤`` or ``+ñ``, U+FFFD, or C1 controls."""
    if text.isascii():
        return "++" in text and _restore(text) != text
    return is_bad(text) or _LOST.search(text) is not None or _restore(text) != text


def repair(text: str) -> str:
    """The text with the damage undone as far as that is certain; a sound text comes back as it is."""
    if text.isascii():
        return _restore(text) if "++" in text else text
    return str(ftfy.fix_encoding(_restore(text)))


def _restore(text: str) -> str:
    if "+" not in text and "-" not in text:
        return text
    found = [(pattern, to, m) for pattern, to in _RULES for m in pattern.finditer(text)]
    # All rules look at the text as it was, since a repaired pair is the neighbour by which the next is known.
    parts, end = [], 0
    for _, to, m in sorted(found, key=lambda f: f[2].start()):
        if m.start() >= end:
            parts += [text[end : m.start()], to if isinstance(to, str) else to[m[1]]]
            end = m.end()
    return "".join([*parts, text[end:]])
