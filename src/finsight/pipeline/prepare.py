"""Prepare: normalised, near-duplicates grouped, split, freed of repeats, tokenised. Twice through the corpus, by row group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from finsight.domain.protocol import protocol
from finsight.domain.records import SPLITS
from finsight.domain.splits import TRAIN, Codes
from finsight.errors import DataError, ParamsError
from finsight.files import atomic_folder, full_disk_is_oserror, write_json
from finsight.modeling.backbone import load_tokenizer, longest_text
from finsight.params.prepare import PrepareParams
from finsight.pipeline.grouping import Corpus, Report, read_corpus
from finsight.pipeline.raw import readable
from finsight.pipeline.row_groups import Run, in_threads, row_groups
from finsight.pipeline.splitting import NO_SPLIT, Columns, names, split_rows
from finsight.pipeline.tables import BACKBONE, TOKENIZER, TOKENS, UNLABELLED, write_csv
from finsight.pipeline.token_cache import drop_unused
from finsight.pipeline.tokenising import TOKEN_IDS, tokenising, with_column

if TYPE_CHECKING:
    from finsight.ports import Backbone


def prepare(
    corpus: Path,
    unlabelled: Path,
    labels: Sequence[str],
    known_as: Mapping[str, str | None],
    params: PrepareParams,
    backbone: Backbone,
    cache: Path,
    prepared: Path,
    report: Path,
    plot: Path,
    progress: Report | None = None,
    run: Run = in_threads,
) -> dict[str, Any]:
    """Write ``prepared/{train,validation,test,unlabelled}.parquet``, token ids beside them, and the tokenizer; return what ``report`` says.

    Equal texts are dropped in train only: the test rows of a published split stay what they are, and rows that leak are marked and
    counted.

    :param unlabelled: table of texts; those that a row of validation or test resembles are left out, and those that stand in train.
    :param known_as: corpus → its name in the literature, if it has one.
    :param cache: folder of token ids by content.
    :param plot: CSV file of how many texts have how many tokens.
    :param progress: is told what was done to how many more rows.
    :param run: where row groups are compared and tokenised; it shapes nothing of what is written.
    """
    tokenizer = load_tokenizer(backbone.folder)
    if params.max_length > (most := longest_text(backbone.folder, tokenizer)):
        raise ParamsError(f"prepare.max_length: got {params.max_length}, but backbone {backbone.name} has {most} positions")
    found = read_corpus([corpus], params.near_duplicates, progress, run)
    splits = split_rows(found.columns, found.unit_of, params.split)
    if missing := [name for number, name in enumerate(SPLITS) if number not in splits]:
        what = " and ".join(missing)
        raise DataError(f"{corpus}: no rows for {what}; the corpora's own splits have none: add a corpus, or set prepare.split.own: false")
    repeated, conflicting = _repeats(found.columns, splits)
    leaks = _leaks(found, splits)
    extra = {
        "split": pa.array(names(splits), pa.string()),
        "leak": pa.array(leaks, pa.string()),
        # The content hash of a group's first row names the group beyond this run.
        "near_group": pa.array(found.columns.hashes, pa.string()).take(pa.array(found.near)),
    }
    kept = (splits != NO_SPLIT) & ~repeated
    definition = tokenizer.backend_tokenizer.to_str()

    def tokenised(path: Path, labels: Sequence[str]) -> Iterator[tuple[pa.Table, int]]:
        return run(partial(tokenising, definition, params.max_length, labels, cache.absolute()), row_groups(path))

    with atomic_folder(prepared) as folder, full_disk_is_oserror():
        counts, lengths, cut = _write(tokenised(corpus, labels), labels, extra, kept, folder, progress)
        kept_texts, texts = _kept_texts(corpus, unlabelled, splits, params.near_duplicates, run)
        _write_texts(unlabelled, kept_texts, tokenised, folder)
        tokenizer.save_pretrained(folder / TOKENIZER)
        write_json(folder / BACKBONE, {**backbone.about(), "max_length": params.max_length})
    drop_unused(cache)
    content = _content(found, splits, leaks, params, known_as, backbone) | {
        "duplicates": {"dropped_in_train": int(repeated.sum()), "conflicting": conflicting},
        "splits": counts,
        "tokens": {"mean": sum(size * n for size, n in lengths.items()) / lengths.total(), "max": max(lengths), "texts_cut": cut},
        "unlabelled": texts,
    }
    write_csv(plot, [{"tokens": size, "texts": lengths[size]} for size in sorted(lengths)])
    write_json(report, content)
    return content


def _repeats(columns: Columns, splits: Codes) -> tuple[NDArray[np.bool_], int]:
    """The rows of train whose text stands earlier in train, and how many of them have another label there."""
    train = np.flatnonzero(splits == TRAIN)
    order = train[np.argsort(columns.texts[train], kind="stable")]
    texts = columns.texts[order]
    fresh = np.r_[True, texts[1:] != texts[:-1]]
    first = order[np.flatnonzero(fresh)[np.cumsum(fresh) - 1]]
    dropped = np.zeros(len(splits), dtype=bool)
    dropped[order[~fresh]] = True
    return dropped, int((columns.labels[first] != columns.labels[order]).sum())


def _leaks(found: Corpus, splits: Codes) -> NDArray[np.object_]:
    """For each row of validation and test: ``equal`` when its text stands in train, ``near`` when a near-duplicate does, else None."""
    train = splits == TRAIN
    in_train = np.zeros(len(splits), dtype=bool)
    in_train[found.near[train]] = True
    leaking = np.flatnonzero((splits > TRAIN) & in_train[found.near])
    leaks = np.full(len(splits), None, dtype=object)
    leaks[leaking] = np.where(np.isin(found.columns.texts[leaking], found.columns.texts[train]), "equal", "near")
    return leaks


def _write(
    tokenised: Iterator[tuple[pa.Table, int]],
    labels: Sequence[str],
    extra: Mapping[str, pa.Array],
    kept: NDArray[np.bool_],
    folder: Path,
    progress: Report | None,
) -> tuple[dict[str, Any], Counter[int], int]:
    """Append the rows of each tokenised row group to their splits; return the splits' counts, texts by tokens, and how many were cut."""
    counts: dict[str, Any] = {split: {"rows": 0, "labels": dict.fromkeys(labels, 0)} for split in SPLITS}
    lengths, cut, start = Counter[int](), 0, 0
    with ExitStack() as files:
        writers: dict[str, Callable[[pa.Table], None]] = {}
        for table, more in tokenised:
            n, cut = table.num_rows, cut + more
            for name, column in extra.items():
                table = with_column(table, name, column.slice(start, n))
            sizes, times = np.unique(pa.compute.list_value_length(table["input_ids"]).to_numpy(), return_counts=True)
            lengths.update(dict(zip(sizes.tolist(), times.tolist(), strict=True)))
            table = table.filter(pa.array(kept[start : start + n]))
            start += n
            for split in SPLITS:
                rows = table.filter(pa.compute.equal(table["split"], split))
                if split not in writers:
                    writers[split] = files.enter_context(_writer(folder / f"{split}.parquet", rows.schema))
                if rows.num_rows:
                    writers[split](rows)
                counts[split]["rows"] += rows.num_rows
                for label, rows_of_it in Counter(rows["label"].to_pylist()).items():
                    counts[split]["labels"][label] += rows_of_it
            if progress:
                progress("tokenised", n)
    return counts, lengths, cut


def _kept_texts(
    corpus: Path, unlabelled: Path, splits: Codes, near_duplicates: float, run: Run
) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Which of the texts without labels tell nothing of validation and test, each once; how many were kept and why not all."""
    with readable(unlabelled):
        n = pq.read_metadata(unlabelled).num_rows
    if not n:
        return np.zeros(0, dtype=bool), {"rows": 0, "near_held_out": 0, "repeated": 0}
    found = read_corpus([corpus, unlabelled], near_duplicates, run=run)
    near, texts = found.near[len(splits) :], found.columns.texts
    held_out = np.isin(near, found.near[: len(splits)][splits > TRAIN])
    first = np.zeros(len(texts), dtype=bool)
    first[np.unique(texts, return_index=True)[1]] = True
    kept = first[len(splits) :] & ~held_out
    return kept, {"rows": int(kept.sum()), "near_held_out": int(held_out.sum()), "repeated": int((~kept & ~held_out).sum())}


def _write_texts(
    unlabelled: Path, kept: NDArray[np.bool_], tokenised: Callable[[Path, Sequence[str]], Iterator[tuple[pa.Table, int]]], folder: Path
) -> None:
    with readable(unlabelled):
        schema = pq.read_schema(unlabelled)
    start = 0
    with _writer(folder / UNLABELLED, schema.append(pa.field("label_id", pa.int16()))) as write:
        for table, _ in tokenised(unlabelled, []) if len(kept) else ():
            if (rows := table.filter(pa.array(kept[start : start + table.num_rows]))).num_rows:
                write(rows)
            start += table.num_rows


@contextmanager
def _writer(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Writes rows to a Parquet file, and their token ids beside it as Arrow, which training maps into memory."""
    rest = pa.schema([field for field in schema if field.name not in TOKEN_IDS.names])
    with pq.ParquetWriter(path, rest) as rows, pa.ipc.new_file(str(path.with_suffix(TOKENS)), TOKEN_IDS) as tokens:

        def write(table: pa.Table) -> None:
            rows.write_table(table.select(rest.names))
            tokens.write_table(table.select(TOKEN_IDS.names))

        yield write


def _content(
    found: Corpus, splits: Codes, leaks: NDArray[np.object_], params: PrepareParams, known_as: Mapping[str, str | None], backbone: Backbone
) -> dict[str, Any]:
    columns, split = found.columns, params.split
    sizes = np.bincount(found.near)
    method = "stratified" if split.method == "held-out" else split.method
    drawn = method + (f" {split.fold} of {split.folds}" if method == "kfold" else "") + f", seed {split.seed}"
    how, present = {}, {}
    for number, corpus in enumerate(columns.corpus_names):
        mine = columns.corpora == number
        own = split.own and bool((columns.own[mine] != NO_SPLIT).any())
        moved = own and bool(((columns.own[mine] != splits[mine]) & (splits[mine] != NO_SPLIT)).any())
        how[corpus] = "held out" if corpus in split.held_out else f"its own, the rest {drawn}" if moved else "its own" if own else drawn
        present[corpus] = {SPLITS[code] for code in np.unique(splits[mine]).tolist() if code != NO_SPLIT}
    leaking = {
        name: {"equal": int((leaks[splits == code] == "equal").sum()), "near": int((leaks[splits == code] != None).sum())}  # noqa: E711
        for code, name in enumerate(SPLITS)
        if code != TRAIN
    }
    train, test = ([corpus for corpus, has in present.items() if name in has] for name in ("train", "test"))
    return {
        "corpora": {corpus: int((columns.corpora == number).sum()) for number, corpus in enumerate(columns.corpus_names)},
        "own_split": int((columns.own != NO_SPLIT).sum()),
        "set_aside": int((splits == NO_SPLIT).sum()),
        "near_duplicates": {"rows": int(sizes[sizes > 1].sum()), "groups": int((sizes > 1).sum()), "largest": int(sizes.max())},
        "leaks": leaking,
        "protocol": protocol(train, test, known_as, how, leaking["test"], backbone.trained_on),
        "backbone": backbone.about(),
    }
