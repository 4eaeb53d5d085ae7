"""A stream of training rows: every row once an epoch, an epoch that goes on anywhere, a killed run that ends in the same bytes."""

import contextlib
import dataclasses
import threading
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from ruamel.yaml import YAML

from conftest import LABELS, shipped_params
from finsight.adapters.local_files import LocalFiles
from finsight.adapters.progress import ProgressBar
from finsight.errors import ArtifactError, DataError
from finsight.files import write_json
from finsight.modeling.backbone import load_model
from finsight.modeling.batching import Data, Rows
from finsight.modeling.device import Hardware, deterministic
from finsight.modeling.epochs import BEGIN, Step
from finsight.modeling.resume import Keeper
from finsight.modeling.stream import Stream, Streamed
from finsight.modeling.training import Fitted, Progress, fit
from finsight.params.train import TrainParams
from finsight.pipeline.fitting import validation_metrics
from finsight.pipeline.prepare import TOKEN_IDS
from finsight.pipeline.prepared_rows import PreparedRows
from finsight.pipeline.token_shards import INDEX, Shards, write_shards
from finsight.pipeline.training_data import read_data, training_data
from finsight.ports import Backbone
from trainings import written_weights

SHIPPED = YAML(typ="safe").load(shipped_params())["train"]
RECIPE: dict[str, Any] = {**SHIPPED, "epochs": 2, "lr": 4e-3, "layer_decay": 1.0, "batch_tokens": 128, "ema": 0.9, "seed": 1}
PIECES = [40, 7, 40, 40, 33, 40, 1, 40, 59]
HELD = 100


def recipe_of(**changes: Any) -> TrainParams:
    return TrainParams.model_validate(RECIPE | changes)


def toy(n: int, seed: int) -> Rows:
    """Rows whose label is told by their second token, and which row it is by the last."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    ids = [
        np.array([2, 100 + label, *rng.integers(200, 400, rng.integers(1, 9)), 500 + i], dtype=np.int32) for i, label in enumerate(labels)
    ]
    return Rows(ids, labels)


def toy_stream(asked: list[int] | None = None) -> Stream:
    rows, ends = toy(sum(PIECES), 1), np.cumsum([0, *PIECES]).tolist()
    validation = toy(60, 2)
    between = list(pairwise(ends))

    def read(piece: int) -> Data:
        if asked is not None:
            asked.append(piece)
        start, end = between[piece]
        part = Rows(rows.ids[start:end], rows.labels[start:end])
        return Data(part, np.eye(3, dtype=np.float32)[part.labels], np.ones(end - start, dtype=np.float32), validation, 0)

    tokens = [len(row) for row in rows.ids]
    return Stream(np.array(PIECES), sum(tokens), max(tokens), HELD, read, validation, 0, "0" * 64)


def order_of(stream: Stream, a_step: int = 1) -> Streamed:
    return Streamed(stream, recipe_of(), a_step, lambda lengths: lengths)


def numbers(step: Step) -> list[list[int]]:
    """Which rows a step has, batch by batch."""
    return [[int(batch.data.train.ids[row][-1]) - 500 for row in batch.rows] for batch in step.batches]


@pytest.mark.parametrize("a_step", [1, 3])
def test_every_row_comes_once_an_epoch_in_an_order_of_its_own(a_step: int) -> None:
    order = order_of(toy_stream(), a_step)
    first, second = (list(order.steps(epoch, BEGIN)) for epoch in (0, 1))
    for steps in (first, second):
        rows = [row for step in steps for batch in numbers(step) for row in batch]
        assert sorted(rows) == list(range(300))
        assert [step.rows for step in steps] == np.cumsum([sum(map(len, numbers(step))) for step in steps]).tolist()
        assert {len(step.batches) for step in steps[:-1]} == {a_step}
        assert max(len(batch.data.train) for step in steps for batch in step.batches) <= HELD
    assert list(map(numbers, first)) != list(map(numbers, second))
    assert list(map(numbers, first)) == list(map(numbers, order_of(toy_stream(), a_step).steps(0, BEGIN)))
    came, whole_way = order.schedule(0, 1, 300)
    assert came == whole_way, "the schedule ends with the last row"
    assert whole_way == pytest.approx(len(first) + len(second), rel=0.25), "padding is all that it does not know of"
    assert order.in_all(len(first) + len(second), 1, 300) == len(first) + len(second)


def test_rows_longer_than_a_batch_are_batches_of_their_own_in_the_estimate_too() -> None:
    stream = dataclasses.replace(toy_stream(), tokens=300 * 20, longest=20)
    order = Streamed(stream, recipe_of(batch_tokens=8), 2, lambda lengths: lengths)
    assert order.rows_a_step(0) == 2
    assert order.schedule(0, 1, 300) == (300, 300)


@pytest.mark.parametrize("a_step", [1, 3])
def test_an_epoch_goes_on_from_any_step_and_reads_nothing_twice(a_step: int) -> None:
    asked: list[int] = []
    order = order_of(stream := toy_stream(asked), a_step)
    steps = list(order.steps(1, BEGIN))
    blocks = stream.blocks(1, 1)
    assert len(blocks) > 3
    for done, step in enumerate(steps, start=1):
        asked.clear()
        assert [(numbers(s), s.rows) for s in order.steps(1, step.place)] == [(numbers(s), s.rows) for s in steps[done:]]
        assert sorted(asked) == sorted(np.concatenate([[], *blocks[step.place[0] :]]).tolist())


def test_an_error_in_reading_ahead_is_raised_and_no_thread_is_left() -> None:
    def broken(piece: int) -> Data:
        raise ArtifactError(f"piece {piece}: damaged")

    fine = toy_stream()
    with pytest.raises(ArtifactError, match="damaged"):
        list(order_of(Stream(fine.sizes, fine.tokens, fine.longest, HELD, broken, fine.validation, 0, fine.digest)).steps(0, BEGIN))
    with contextlib.closing(order_of(fine).steps(0, BEGIN)) as steps:
        assert list(islice(steps, 2))
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("ahead", "read"))]


class KilledError(Exception):
    pass


def run(backbone: Path, keeper: Keeper | None = None, kill: int = 0, **changes: Any) -> tuple[bytes, Fitted, list[Progress]]:
    seen: list[Progress] = []

    def see(progress: Progress) -> None:
        seen.append(progress)
        if progress.step == kill and not progress.metrics:
            raise KilledError

    recipe = recipe_of(**changes)
    with deterministic(recipe.seed):
        model = load_model(backbone, LABELS, new_head=True, dropout=recipe.dropout)
        hardware = Hardware(torch.device("cpu"))
        fitted = fit(model, toy_stream(), recipe, hardware, lambda *found: validation_metrics(*found, 3), [see], keeper=keeper)
    return b"".join(p.detach().numpy().tobytes() for p in model.parameters()), fitted, seen


@pytest.mark.parametrize(("changes", "at"), [({}, 16), ({"accumulation": 3, "frozen_layers": 2, "unfreeze_every": 1}, 9)])
def test_a_killed_run_goes_on_to_the_same_weights(tiny_backbone: Path, tmp_path: Path, changes: dict[str, Any], at: int) -> None:
    whole, expected, steps = run(tiny_backbone, **changes)
    assert steps[-1].step == steps[-1].steps > at
    assert [p.rows for p in steps if p.metrics] == [300, 300]
    path = tmp_path / "state.safetensors"
    with pytest.raises(KilledError):
        run(tiny_backbone, Keeper(path, 0.0), kill=at, **changes)
    resumed, fitted, seen = run(tiny_backbone, Keeper(path, 0.0), **changes)
    assert (seen[0].step, seen[0].rows) == next((p.step, p.rows) for p in steps if p.step == at)
    assert resumed == whole
    assert fitted == expected


def test_swa_of_a_stream_is_the_mean_over_its_last_rows(tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = written_weights(monkeypatch)
    kept, _, steps = run(tiny_backbone, epochs=1, swa=0.5)
    ends = np.array([p.rows for p in steps if not p.metrics])
    a_step = order_of(toy_stream()).rows_a_step(0)
    begin = round(300 / a_step / 2) * a_step
    rows = torch.tensor(np.diff(np.maximum(ends, begin), prepend=begin)).float()
    assert len(written) > 300 / a_step, "padding makes more steps than were counted on"
    mean = (torch.stack(written) * (rows / rows.sum())[:, None, None]).sum(0)
    torch.testing.assert_close(torch.frombuffer(bytearray(kept[: mean.nbytes]), dtype=torch.float32).view_as(mean), mean)


def test_the_bar_follows_the_estimate_of_a_streams_steps(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar() as bar:
        for step, steps in ((1, 90), (25, 52), (50, 50)):
            bar(Progress(1, 1, step, steps, 6 * step, 0.5, {}))
    assert "50/50" in capsys.readouterr().err


@pytest.fixture
def prepared(tiny_backbone: Path, tmp_path: Path) -> Path:
    """What prepare writes of 70 rows, by row groups of 30."""
    folder = tmp_path / "prepared"
    folder.mkdir()
    for split, n in (("train", 70), ("validation", 9)):
        rows = toy(n, n)
        agreements = [None if i % 3 else 66 for i in range(n)]
        table = pa.table({"label_id": pa.array(rows.labels, pa.int16()), "agreement": pa.array(agreements, pa.int16())})
        arrow = pa.ipc.new_file(str(folder / f"{split}.arrow"), TOKEN_IDS)
        with pq.ParquetWriter(folder / f"{split}.parquet", table.schema) as labels, arrow as tokens:
            for start in range(0, n, 30):
                labels.write_table(table.slice(start, 30))
                tokens.write_table(pa.table({"input_ids": rows.ids[start : start + 30]}, schema=TOKEN_IDS))
    (folder / "tokenizer").symlink_to(tiny_backbone)
    write_json(folder / "backbone.json", {"name": "tiny", "sha256": "0" * 64, "license": "MIT", "max_length": 64})
    return folder


@pytest.mark.parametrize("sharded", [False, True])
def test_a_stream_has_what_is_held_otherwise(prepared: Path, tiny_backbone: Path, tmp_path: Path, sharded: bool) -> None:
    recipe = recipe_of(class_weights="balanced", stream={"shards": "", "above": 69, "shuffle_buffer": 16})
    backbone, folder = Backbone("tiny", tiny_backbone, "0" * 64, "MIT"), LocalFiles(tmp_path / "shards")
    if sharded:
        assert write_shards(prepared, LABELS, folder, 25) == (70, 4), "pieces of 15, 15, 15, 15 and 10 rows"
    held, stream = read_data(prepared, LABELS, recipe), training_data(prepared, LABELS, recipe, backbone, folder if sharded else None)
    assert isinstance(stream, Stream)
    assert (len(stream), stream.tokens, stream.longest) == (70, sum(map(len, held.train.ids)), max(map(len, held.train.ids)))
    read = stream.block(np.arange(len(stream.sizes)))
    assert [row.tolist() for row in read.train.ids] == [row.tolist() for row in held.train.ids]
    for mine, other in ((read.train.labels, held.train.labels), (read.targets, held.targets), (read.weights, held.weights)):
        np.testing.assert_array_equal(mine, other)
    assert isinstance(training_data(prepared, LABELS, recipe_of(), backbone, None), Data), "what fits is held"


def test_shards_that_are_not_what_they_should_be_are_refused(prepared: Path, tmp_path: Path) -> None:
    folder = LocalFiles(tmp_path / "shards")
    with pytest.raises(ArtifactError, match=r"holds no shards\.json; `finsight shards .*` writes it, after the last shard"):
        Shards(folder, LABELS, "0" * 64)
    write_shards(prepared, LABELS, folder, 40)
    with pytest.raises(DataError, match="holds shards already"):
        write_shards(prepared, LABELS, folder, 40)
    with pytest.raises(ArtifactError, match="made for a backbone with weights 000"):
        Shards(folder, LABELS, "1" * 64)
    with pytest.raises(ArtifactError, match=r"made for labels \['negative', 'neutral', 'positive'\], expected \['down', 'up'\]"):
        Shards(folder, ["down", "up"], "0" * 64)
    found = Shards(folder, LABELS, "0" * 64)
    assert found.sizes.tolist() == PreparedRows(prepared / "train.parquet").sizes.tolist() == [30, 30, 10]
    shard = tmp_path / "shards/train-00001.arrow"
    assert pa.ipc.open_file(shard).read_all().num_rows == 40, "any Arrow reads it"
    whole = shard.read_bytes()
    for damaged in (whole[:500], whole[:600] + bytes([whole[600] ^ 1]) + whole[601:]):
        shard.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"train-00001\.arrow: damaged at byte 304"):
            found.read(1)
    index = tmp_path / f"shards/{INDEX}"
    index.write_text(index.read_text().replace("train-00001.arrow", "../../elsewhere.arrow"))
    with pytest.raises(ArtifactError, match=r"shards\.json: not what `finsight shards` writes there"):
        Shards(folder, LABELS, "0" * 64)
    index.write_text("{}")
    with pytest.raises(ArtifactError, match=r"shards\.json: not what `finsight shards` writes there"):
        Shards(folder, LABELS, "0" * 64)
