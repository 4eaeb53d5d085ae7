"""docs/recipes.md has what the benchmark prints, and nothing else."""

import os
import subprocess
import sys
from itertools import accumulate, pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
WIDTHS = (12, 64, 7, 6, 16, 16, 11, 9)  # of bench/accuracy.py's columns; the seconds of a run are this machine's, and not in the docs


def printed() -> list[list[str]]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    said = subprocess.check_output([sys.executable, "bench/accuracy.py"], cwd=ROOT, text=True, env=environment)
    rows = []
    for line in said.splitlines()[1:]:
        ends = list(accumulate(WIDTHS, initial=0))
        cells = [line[start:end].strip() for start, end in pairwise(ends)]
        rows.append(["–" if cell == "-" else cell for cell in cells])
    return rows


def test_the_table_of_the_recipes_is_the_one_that_the_benchmark_prints() -> None:
    lines = (ROOT / "docs/recipes.md").read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("| corpus "))
    written = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        written.append([cell.strip() for cell in line.strip("|").split("|")])
    found = printed()
    assert any(row[1] == "shipped" for row in found), "params.yaml's recipe is none that was measured"
    assert sorted(written) == sorted(found)
