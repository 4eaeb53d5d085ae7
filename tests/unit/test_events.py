"""What a command says of itself."""

import json
from pathlib import Path

import pytest

from finsight.events import VARIABLE, say


def test_half_a_character_stops_nobody_and_the_line_can_be_sent_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "events"))
    say("error", error="no column \ud83d in 利润")
    say("stage", stage="score")
    lines = [json.loads(line) for line in (tmp_path / "events").read_text(encoding="utf-8").splitlines()]
    assert lines == [{"type": "error", "error": "no column ? in 利润"}, {"type": "stage", "stage": "score"}]
