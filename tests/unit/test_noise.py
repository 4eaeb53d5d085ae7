"""Doubtful labels."""

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from conftest import LABELS
from finsight.pipeline.noise import HEADER, Suspects, find_suspects, plain, write_suspects
from raw_tables import SCHEMA, raw_row, starter_table


def test_flipped_labels_come_first() -> None:
    rows = starter_table(2400)
    rng = np.random.default_rng(0)
    flipped = {rows[i]["hash"]: rows[i]["label"] for i in rng.choice(len(rows), len(rows) // 20, replace=False)}
    for row in rows:
        if row["hash"] in flipped:
            row["label"] = rng.choice([label for label in LABELS if label != row["label"]])
    found = find_suspects(pa.Table.from_pylist(rows, SCHEMA), LABELS)
    assert found.examined == len(rows)
    assert len(found.rows) < len(rows) / 2
    hits = [row for row in found.rows if row[0] in flipped]
    assert len(hits) / len(flipped) > 2 * len(found.rows) / len(rows)  # recall over that of as many rows drawn by chance
    assert sum(row[0] in flipped for row in found.rows[:50]) > 5 * 50 / 20
    assert sum(suggested == flipped[hash_] for hash_, _, suggested, *_ in hits) / len(hits) > 0.6
    qualities = [float(row[3]) for row in found.rows]
    assert qualities == sorted(qualities)
    assert all(label != suggested for _, label, suggested, *_ in found.rows)


def test_the_same_rows_give_the_same_list() -> None:
    table = pa.Table.from_pylist(starter_table(400), SCHEMA)
    assert find_suspects(table, LABELS) == find_suspects(table, LABELS)


def test_too_few_rows_of_a_label_are_said() -> None:
    rows = [row for row in starter_table(120) if row["label"] != "negative"]
    found = find_suspects(pa.Table.from_pylist(rows, SCHEMA), LABELS)
    assert found == Suspects(skipped="label 'negative' has 0 rows, 5 are needed")


def test_texts_without_a_common_word_are_said() -> None:
    rows = [raw_row(i, f"word{i}", LABELS[i % 3]) for i in range(30)]
    assert find_suspects(pa.Table.from_pylist(rows, SCHEMA), LABELS).skipped == "no two texts have a word in common"


def test_rows_without_text_or_a_known_label_are_left_out() -> None:
    rows = starter_table(240)
    rows[0]["text"], rows[1]["label"], rows[2]["label"] = None, "bullish", None
    assert find_suspects(pa.Table.from_pylist(rows, SCHEMA), LABELS).examined == 237


@pytest.mark.parametrize("cell", ["=1+1", "+5 pct", "-3%", "@cmd", "\tx"])
def test_what_a_spreadsheet_would_run_is_shown_as_text(cell: str) -> None:
    assert plain(cell) == "'" + cell
    assert plain("Sales rose =1") == "Sales rose =1"


def test_the_list_is_csv_that_reads_back(tmp_path: Path) -> None:
    row = ("a" * 32, "neutral", "positive", "0.1000", "starter/x.csv:2", plain('=HYPERLINK("x"), said\n"he"'))
    write_suspects(tmp_path / "suspects.csv", Suspects(1, [row]))
    with (tmp_path / "suspects.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [list(HEADER), list(row)]
    write_suspects(tmp_path / "suspects.csv", Suspects())
    assert (tmp_path / "suspects.csv").read_text() == "hash,label,suggested,quality,id,text\n"
