"""Names that come from elsewhere (an address, a header, a bucket, a hub) as names that can't leave their folder or hide in it."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from finsight.errors import DataError

LONGEST = 150  # bytes; file systems take 255, and suffixes such as .partial are added


def safe_name(name: str, fallback: str = "download") -> str:
    """``name`` without folders, control characters, leading dots and what patterns and shells read as their own; or ``fallback``."""
    name = unicodedata.normalize("NFC", unquote(name)).replace("\\", "/").rpartition("/")[2]
    name = "".join(c for c in name if unicodedata.category(c)[0] != "C")
    name = re.sub(r'[<>:"|?*\[\]]', "_", name).strip().lstrip(". ").rstrip(". ")
    while len(name.encode()) > LONGEST:  # the suffixes say what is inside, so the stem is cut
        stem, dot, suffixes = name.partition(".")
        name = stem[:-1] + dot + suffixes if len(stem) > 1 else name[-LONGEST // 4 :].lstrip(".")
    return name or fallback


def inside(folder: Path, relative: str, source: str) -> Path:
    """``folder / relative``, for a relative path that names no folder above and nothing hidden.

    :raises DataError: when it does.
    """
    parts = PurePosixPath(relative).parts
    if not parts or any(part != safe_name(part.replace("%", "%25")) for part in parts):
        raise DataError(f"{source}: holds a file named {relative!r}, which is no safe name for a file here; nothing was added")
    return folder.joinpath(*parts)
