"""docs/architecture-map.md: what it names is there."""

import re

from conftest import REPO

TEXT = (REPO / "docs/architecture-map.md").read_text()
ROWS = [row for row in TEXT.splitlines() if row.startswith("| ") and not row.startswith("| asked for")]
NAMED = re.compile(r"`([\w.-]+/[\w./-]*|[\w-]+\.(?:yaml|lock|toml|md|py|baseline)|\.[\w.]+)`(?! \(being built\))")


def test_there_is_a_row_for_each_thing_and_a_place_in_each() -> None:
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in ROWS]
    assert len(cells) > 150
    assert {len(row) for row in cells} == {3}
    assert not [row for row in cells if not row[0] or not re.search(r"`[^`]+`|\]\(", row[1])]


def test_every_path_exists() -> None:
    named = {path: row for row in ROWS for path in NAMED.findall(row.split("|")[2])}
    assert len(named) > 150
    assert not {path: row for path, row in named.items() if not (REPO / path).exists()}


def test_a_path_that_is_not_there_is_found() -> None:
    for path in ("src/finsight/gone.py", "gone.yaml", ".gone", "gone/"):
        assert NAMED.findall(f"`{path}`") == [path]
    assert not NAMED.findall("`deploy/gone` (being built), `make export`, `finsight models list`")
