"""Bytes to text without guessing silently: a byte-order mark, UTF-8, the encoding that params.yaml names, or a refusal."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from finsight.adapters.corpus_files import SourceFile
from finsight.errors import DataError, ParamsError

# The longer mark first: UTF-32's begins with UTF-16's.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SAMPLE = 1 << 16  # bytes on which a candidate is chosen
# What files come in, beside UTF-8 and cp1252; others (Mac, EBCDIC) look alike and would only be guesses.
_CANDIDATES = ("cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r", "cp932", "euc_jp", "gb18030", "big5", "cp949")
_EVIDENCE = 32  # bytes beyond ASCII without which statistics say nothing
_STEP = 1 << 16


def encoding_of(source: SourceFile, encoding: str, corpus: str) -> str:
    """The codec of ``source``: what its byte-order mark says or UTF-8 when ``encoding`` is ``auto``, else ``encoding``.

    :raises ParamsError: when there is no such encoding.
    """
    if encoding != "auto":
        try:
            io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        except (LookupError, ValueError):
            raise ParamsError(
                f"corpora.{corpus}.encoding: {encoding!r} is no text encoding; use auto, utf-8-sig, latin-1 or cp1252"
            ) from None
        return encoding
    with source.open() as file:
        head = file.read(4)
    return next((codec for mark, codec in _MARKS.items() if head.startswith(mark)), "utf-8")


@contextmanager
def open_text(source: SourceFile, encoding: str, corpus: str, newline: str = "") -> Iterator[TextIO]:
    """Open ``source`` in an encoding that :func:`encoding_of` gave; line ends are untouched.

    :raises DataError: while it is read, when its bytes are not of the encoding; the first bad byte and its line are named.
    """
    try:
        with source.open() as file, io.TextIOWrapper(file, encoding=encoding, newline=newline) as text:
            yield text
    except UnicodeError:
        raise DataError(_name_bad_byte(source, encoding, corpus)) from None


def decode(source: SourceFile, encoding: str, corpus: str, fallback: str) -> tuple[str, str]:
    """The whole text of a small file and its encoding; ``fallback`` is taken where ``auto`` finds neither a mark nor valid UTF-8."""
    codec = encoding_of(source, encoding, corpus)
    if encoding == "auto" and codec == "utf-8":
        with source.open() as file:
            content = file.read()
        try:
            return content.decode(codec), codec
        except UnicodeDecodeError:
            return content.decode(fallback), fallback
    with open_text(source, codec, corpus) as text:
        return text.read(), codec


def _name_bad_byte(source: SourceFile, encoding: str, corpus: str) -> str:
    # The decoder that failed saw chunks of the file, so its position means nothing to a person; look again and count lines.
    decoder, line = codecs.getincrementaldecoder(encoding)(), 1
    with source.open() as file:
        while True:
            chunk = file.read(_STEP)
            try:
                line += decoder.decode(chunk, final=not chunk).count("\n")
            except UnicodeDecodeError as error:
                line += error.object[: error.start].decode(encoding, errors="ignore").count("\n")
                cut = "the file is cut off, or " if not chunk else ""
                advice = _advise(error.object[max(0, error.start - _SAMPLE) :] + file.read(_SAMPLE), encoding, corpus)
                return f"{source.place}: line {line}: byte 0x{error.object[error.start]:02x} is not {_shown(encoding)}; {cut}{advice}"
            except UnicodeError:  # some codecs name no position
                break
            if not chunk:
                break
    return f"{source.place}: not {_shown(encoding)}; {_advise(b'', encoding, corpus)}"


def _shown(encoding: str) -> str:
    return "UTF-8" if encoding == "utf-8" else encoding


def _advise(sample: bytes, encoding: str, corpus: str) -> str:
    found = candidate(sample) if encoding.startswith("utf-8") else None
    if found is None:
        return f"set corpora.{corpus}.encoding in params.yaml (latin-1 and cp1252 are frequent), or write the file again as UTF-8"
    return f"it looks like {found}: set corpora.{corpus}.encoding: {found} in params.yaml"


def candidate(sample: bytes) -> str | None:
    """What the bytes beyond ASCII look like, or None where nothing fits well."""
    lines = [line for line in sample.splitlines() if not line.isascii()]
    high = bytes(b for line in lines for b in line if b >= 0x80)
    if not high:
        return None
    if len(high) < 0.2 * sum(map(len, lines)):  # Latin script: few bytes are accented letters and quotation marks
        try:
            high.decode("cp1252")
        except UnicodeDecodeError:
            return None
        return "cp1252"
    if len(high) < _EVIDENCE:
        return None
    from charset_normalizer import from_bytes

    best = from_bytes(b"\n".join(lines)[:_SAMPLE], cp_isolation=list(_CANDIDATES)).best()
    return best.encoding if best is not None else None
