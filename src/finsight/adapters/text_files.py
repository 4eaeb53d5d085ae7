"""Opening text files of users so that a wrong encoding is named by place instead of guessed around."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from finsight.errors import DataError, ParamsError


@contextmanager
def open_text(path: Path, encoding: str, corpus: str) -> Iterator[TextIO]:
    """Open ``path`` for the csv module (line ends untouched).

    :raises DataError: when it is missing, or its bytes are not of the encoding; the first bad byte and its line are named.
    :raises ParamsError: when there is no such encoding.
    """
    try:
        with path.open(encoding=encoding, newline="") as file:
            yield file
    except LookupError:
        raise ParamsError(f"corpora.{corpus}.encoding: {encoding!r} is no text encoding; use utf-8-sig, latin-1 or cp1252") from None
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check corpora.{corpus}.path in params.yaml") from None
    except UnicodeDecodeError:
        raise DataError(_name_bad_byte(path, encoding, corpus)) from None


def _name_bad_byte(path: Path, encoding: str, corpus: str) -> str:
    # The decoder that failed saw chunks of the file, so its position means nothing to a person; look again, line by line.
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError as error:
                return (
                    f"{path}: line {number}: byte 0x{line[error.start]:02x} is not {encoding}; "
                    f"set corpora.{corpus}.encoding in params.yaml (latin-1 and cp1252 are frequent)"
                )
    return f"{path}: its end is not {encoding}; the file may be cut off, or set corpora.{corpus}.encoding in params.yaml"
