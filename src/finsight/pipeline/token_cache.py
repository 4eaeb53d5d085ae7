"""Token ids kept by content, so that a corpus is tokenised once and adding a small one does not tokenise the large one again."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finsight.files import cached_folder
from finsight.modeling.tokens import Flat, Offsets

VERSION = 1  # of what TextTokenizer makes of a text
UNUSED_DAYS = 30
_FILE = "tokens.parquet"

Tokens = tuple[Flat, Offsets, int]


def cache_key(tokenizer: str, max_length: int, hashes: Sequence[str]) -> str:
    """What a batch's token ids depend on, as one digest.

    :param tokenizer: SHA-256 of tokenizer.json.
    :param hashes: content hashes of the batch's normalised texts, in order.
    """
    head = f"{VERSION}:{max_length}:{tokenizer}:"
    return hashlib.sha256((head + "".join(hashes)).encode()).hexdigest()


def cached_tokens(cache: Path, key: str, make: Callable[[], Tokens]) -> Tokens:
    """The tokens kept under ``key``, or what ``make`` returns, kept from then on. A damaged entry is made again."""
    folder = cache / key[:2] / key
    try:
        table = pq.read_table(folder / _FILE)
        os.utime(folder)
        ids = table["ids"].combine_chunks()
        return ids.values.to_numpy(), ids.offsets.to_numpy().astype(np.int64), int(table.schema.metadata[b"cut"])
    except FileNotFoundError:
        pass
    except (pa.ArrowInvalid, KeyError, OSError):
        shutil.rmtree(folder, ignore_errors=True)
    ids, offsets, cut = make()
    column = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(ids))
    with cached_folder(folder) as partial:
        pq.write_table(
            pa.table({"ids": column}).replace_schema_metadata({"cut": str(cut)}), partial / _FILE, compression="lz4", use_dictionary=False
        )
    return ids, offsets, cut


def drop_unused(cache: Path) -> None:
    """Remove what no run has used for ``UNUSED_DAYS`` days."""
    limit = time.time() - UNUSED_DAYS * 86400
    for folder in cache.glob("*/*"):
        if folder.is_dir() and folder.stat().st_mtime < limit:
            shutil.rmtree(folder, ignore_errors=True)
