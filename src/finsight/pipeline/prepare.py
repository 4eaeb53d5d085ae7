"""Prepare: normalised, split, freed of duplicates, tokenised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerFast

from finsight.domain.dedup import drop_duplicates
from finsight.domain.records import SPLITS, content_hash, normalise
from finsight.domain.splits import stratified
from finsight.errors import DataError, ParamsError
from finsight.files import atomic_folder, full_disk_is_oserror, write_json
from finsight.modeling.backbone import load_tokenizer, longest_text
from finsight.params.prepare import PrepareParams, SplitParams
from finsight.pipeline.tables import BACKBONE, TOKENIZER, read_table

if TYPE_CHECKING:
    from finsight.ports import Backbone


def prepare(corpus: Path, labels: Sequence[str], params: PrepareParams, backbone: Backbone, prepared: Path, report: Path) -> dict[str, Any]:
    """Write ``prepared/{train,validation,test}.parquet`` and the tokenizer; return what ``report`` says.

    A corpus's own split is respected; rows without one are split by label, each corpus for itself. Duplicates are dropped in
    train only: the test rows of a published split stay what they are, and rows that leak are counted.
    """
    table = read_table(corpus)
    texts = [normalise(text) for text in table["text"].to_pylist()]
    names, own = table["label"].to_pylist(), table["split"].to_pylist()
    hashes = [content_hash(text) for text in texts]
    splits = _split(table["corpus"].to_pylist(), hashes, names, own, params.split)
    duplicates = drop_duplicates(hashes, names, splits)
    tokenizer = load_tokenizer(backbone.folder)
    if params.max_length > (most := longest_text(backbone.folder, tokenizer)):
        raise ParamsError(f"prepare.max_length: got {params.max_length}, but backbone {backbone.name} has {most} positions")
    ids, cut = _tokenise(tokenizer, texts, params.max_length)
    table = table.set_column(table.schema.get_field_index("text"), "text", pa.array(texts))
    table = table.set_column(table.schema.get_field_index("hash"), "hash", pa.array(hashes))
    table = table.set_column(table.schema.get_field_index("split"), "split", pa.array(splits))
    table = table.append_column("label_id", pa.array([list(labels).index(name) for name in names], pa.int16()))
    table = table.append_column("input_ids", pa.array(ids, pa.list_(pa.int32())))
    table = table.filter(pa.array(duplicates.keep))
    counts: dict[str, Any] = {}
    with atomic_folder(prepared) as partial, full_disk_is_oserror():
        for split in SPLITS:
            rows = table.filter(pa.compute.equal(table["split"], split))
            if not rows.num_rows:
                raise DataError(
                    f"{corpus}: no rows for {split}; the corpora's own splits have none, add a corpus or drop its split in params.yaml"
                )
            pq.write_table(rows, partial / f"{split}.parquet")
            by_label = Counter(rows["label"].to_pylist())
            counts[split] = {"rows": rows.num_rows, "labels": {label: by_label[label] for label in labels}}
        tokenizer.save_pretrained(partial / TOKENIZER)
        write_json(partial / BACKBONE, backbone.about())
    content = {
        "corpora": dict(sorted(Counter(table["corpus"].to_pylist()).items())),
        "splits": counts,
        "own_split": sum(split is not None for split in own),
        "duplicates": {
            "dropped_in_train": duplicates.dropped,
            "conflicting": duplicates.conflicting,
            "crossing_splits": duplicates.crossing,
        },
        "tokens": {"mean": float(np.mean([len(row) for row in ids])), "max": max(map(len, ids)), "texts_cut": cut},
        "backbone": backbone.about(),
    }
    write_json(report, content)
    return content


def _split(
    corpora: Sequence[str], hashes: Sequence[str], labels: Sequence[str], own: Sequence[str | None], params: SplitParams
) -> list[str]:
    splits = list(own)
    for corpus in sorted(set(corpora)):
        rows = [i for i, name in enumerate(corpora) if name == corpus and own[i] is None]
        if rows:
            drawn = stratified(corpus, [hashes[i] for i in rows], [labels[i] for i in rows], params.validation, params.test, params.seed)
            for i, split in zip(rows, drawn, strict=True):
                splits[i] = split
    return [split for split in splits if split is not None]


def _tokenise(tokenizer: PreTrainedTokenizerFast, texts: list[str], max_length: int) -> tuple[list[list[int]], int]:
    """Token ids of each text, cut to ``max_length``, and how many were cut."""
    encoded = tokenizer(texts, truncation=True, max_length=max_length, return_attention_mask=False, return_overflowing_tokens=True)
    first = {row: i for i, row in reversed(list(enumerate(encoded["overflow_to_sample_mapping"])))}
    ids = [encoded["input_ids"][first[row]] for row in range(len(texts))]
    pieces = Counter(encoded["overflow_to_sample_mapping"])
    return ids, sum(n > 1 for n in pieces.values())
