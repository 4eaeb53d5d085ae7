"""Promotion, rollback, archive and deletion, on the registry in memory (tests/contracts show that it is like MLflow's)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fakes import MemoryRegistry, MemoryTracker
from finsight.errors import DataError, GateError, ParamsError
from finsight.pipeline import audit
from finsight.pipeline.models import Judge, about, archive, delete, download, facts, find, promote, rollback
from finsight.pipeline.run_record import archived

COMPARED = {
    "new": "version 2",
    "primary": "macro_f1",
    "verdict": "better",
    "rows": {"both": 100},
    "rows_needed": None,
    "metrics": {"macro_f1": {"base": 0.7, "new": 0.8, "difference": 0.1, "low": 0.05, "high": 0.15, "p": 0.001}},
}


def says(*failed: str) -> Judge:
    return lambda holder, version: (COMPARED, list(failed))


def cannot(holder: Any, version: Any) -> tuple[dict[str, Any], list[str]]:
    raise DataError("no test row in common")


@pytest.fixture
def registry() -> MemoryRegistry:
    made = MemoryRegistry()
    for i in (1, 2, 3):
        made.create(f"run{i}", "model", f"digest{i}", {"non_commercial": "corpus x (CC-BY-NC-4.0)" if i == 3 else "no"})
    made.set_alias("champion", 1)
    made.record(audit.line("a", audit.REGISTERED, 1, "registered", "champion"))
    return made


def held(registry: MemoryRegistry, alias: str = "champion") -> list[int]:
    return [v.number for v in registry.versions() if alias in v.aliases]


def run(registry: MemoryRegistry, name: str, judge: Judge, alias: str = "champion", commercial: Sequence[str] = (), **more: Any) -> str:
    return promote(registry, name, alias, judge, commercial, "me", more.pop("why", ""), **more)


def test_what_passes_is_promoted_and_written_down(registry: MemoryRegistry) -> None:
    assert "version 2 is champion now, instead of 1: version 2 is better in macro_f1" in run(registry, "2", says(), why="monthly")
    assert held(registry) == [2]
    line = registry.audit()[-1]
    assert (line["who"], line["action"], line["alias"], line["from"], line["to"]) == ("me", "promote", "champion", "1", "2")
    assert line["why"].startswith("monthly; version 2 is better")


def test_what_fails_a_gate_is_not(registry: MemoryRegistry) -> None:
    before = registry.audit()
    with pytest.raises(GateError, match=r"version 2 is not promoted over version 1: gates\.primary: worse; `--force"):
        run(registry, "2", says("gates.primary: worse"))
    assert (held(registry), registry.audit()) == ([1], before)


def test_force_is_recorded(registry: MemoryRegistry) -> None:
    run(registry, "2", says("gates.primary: worse"), force=True, why="the old one leaks")
    assert held(registry) == [2]
    assert registry.audit()[-1]["why"].startswith("the old one leaks; forced over gates.primary: worse: ")


def test_what_can_t_be_compared_is_promoted_by_force_alone(registry: MemoryRegistry) -> None:
    with pytest.raises(GateError, match="can't be compared with version 1, which is champion: no test row in common"):
        run(registry, "2", cannot)
    run(registry, "2", cannot, force=True, why="another corpus")
    assert registry.audit()[-1]["why"] == "another corpus; forced: not compared: no test row in common"


def test_an_alias_that_nobody_holds_needs_no_comparison(registry: MemoryRegistry) -> None:
    assert run(registry, "2", cannot, alias="production") == "version 2 is production now: there was no production"


def test_the_same_again_changes_nothing(registry: MemoryRegistry) -> None:
    before = registry.audit()
    assert "nothing was changed" in run(registry, "1", cannot)
    assert registry.audit() == before


@pytest.mark.parametrize("force", [False, True])
def test_no_commercial_alias_for_what_is_not_licensed_for_it(registry: MemoryRegistry, force: bool) -> None:
    with pytest.raises(GateError, match=r"version 3 is not for commercial use, which production is .*corpus x \(CC-BY-NC-4.0\)"):
        run(registry, "3", says(), alias="production", commercial=["production"], force=force, why="x")
    assert held(registry, "production") == []
    run(registry, "3", says(), commercial=["production"])
    assert held(registry) == [3]


def test_rollback_goes_back_step_by_step(registry: MemoryRegistry) -> None:
    run(registry, "2", says())
    run(registry, "3", says())
    assert rollback(registry, "champion", [], "me", "it was slow") == "version 2 is champion again, instead of 3"
    assert registry.audit()[-1] | {"when": ""} == {
        "when": "", "who": "me", "action": "rollback", "alias": "champion", "from": "3", "to": "2", "why": "it was slow",
    }  # fmt: skip
    rollback(registry, "champion", [], "me", "")
    assert held(registry) == [1]
    with pytest.raises(DataError, match="champion: the audit log knows no version before 1"):
        rollback(registry, "champion", [], "me", "")
    run(registry, "3", says())
    rollback(registry, "champion", [], "me", "")
    assert held(registry) == [1]


def test_rollback_passes_over_what_was_deleted(registry: MemoryRegistry) -> None:
    run(registry, "2", says())
    run(registry, "3", says())
    delete(registry, "2", "me", "")
    rollback(registry, "champion", [], "me", "")
    assert held(registry) == [1]


def test_rollback_after_a_change_that_we_were_not_told_of(registry: MemoryRegistry) -> None:
    run(registry, "2", says())
    registry.set_alias("champion", 3)
    rollback(registry, "champion", [], "me", "")
    assert held(registry) == [2]


def test_rollback_where_the_log_begins_with_a_promotion(registry: MemoryRegistry) -> None:
    """As where the champion was made by a finsight that kept no log."""
    other = MemoryRegistry()
    for i in (1, 2):
        other.create(f"run{i}", "model", f"digest{i}", {})
    other.set_alias("champion", 1)
    run(other, "2", says())
    rollback(other, "champion", [], "me", "")
    assert held(other) == [1]


def test_rollback_after_a_move_by_other_means_and_a_promotion(registry: MemoryRegistry) -> None:
    run(registry, "2", says())
    registry.set_alias("champion", 3)
    run(registry, "1", says())
    rollback(registry, "champion", [], "me", "")
    assert held(registry) == [3]


def test_rollback_where_a_promotion_was_only_announced(registry: MemoryRegistry) -> None:
    registry.record(audit.line("me", audit.PROMOTED, 2, "", "champion", 1))  # and killed before the alias moved
    with pytest.raises(DataError, match="champion: the audit log knows no version before 1"):
        rollback(registry, "champion", [], "me", "")


def test_a_reason_that_is_too_long_changes_nothing(registry: MemoryRegistry) -> None:
    with pytest.raises(ParamsError, match="audit line: got"):
        run(registry, "2", says(), why="x" * 6000)
    assert held(registry) == [1]


@pytest.mark.parametrize("alias", ["3", "v1", "latest", "a/b", "", "-x", "chämpion", "a" * 65])
def test_an_alias_can_t_be_taken_for_a_number(registry: MemoryRegistry, alias: str) -> None:
    with pytest.raises(DataError, match="--alias: got"):
        run(registry, "2", says(), alias=alias)


def test_a_version_that_does_not_say_what_it_was_made_from_gets_no_commercial_alias() -> None:
    other = MemoryRegistry()
    other.create("run1", "model", "digest1", {})
    with pytest.raises(GateError, match="it does not say what it was made from"):
        run(other, "1", says(), alias="production", commercial=["production"])


def test_what_finsight_has_not_registered_is_not_fetched(tmp_path: Path) -> None:
    other = MemoryRegistry()
    for digest in ("", "../../etc", "A" * 64):
        with pytest.raises(DataError, match="was not registered by finsight"):
            download(MemoryTracker(tmp_path), other.create("run1", "model", digest, {}), tmp_path)


def test_rollback_to_what_is_no_longer_allowed_is_refused(registry: MemoryRegistry) -> None:
    run(registry, "3", says())
    run(registry, "2", says())
    with pytest.raises(GateError, match="version 3 is not for commercial use"):
        rollback(registry, "champion", ["champion"], "me", "")


def test_what_an_alias_holds_is_neither_archived_nor_deleted(registry: MemoryRegistry) -> None:
    for change in (archive, delete):
        with pytest.raises(DataError, match="version 1 is champion, so it is not (archived|deleted); `finsight models rollback`"):
            change(registry, "champion", "me", "")
    assert [v.number for v in registry.versions()] == [1, 2, 3]


def test_archive_and_back(registry: MemoryRegistry) -> None:
    archive(registry, "2", "me", "old")
    assert archived(find(registry.versions(), "2"))
    with pytest.raises(DataError, match="version 2 is archived; `finsight models archive --undo 2`"):
        run(registry, "2", says())
    archive(registry, "2", "me", "", undo=True)
    assert not archived(find(registry.versions(), "2"))
    run(registry, "2", says())
    assert [line["action"] for line in registry.audit()] == ["register", "archive", "restore", "promote"]


def test_a_deletion_is_written_down(registry: MemoryRegistry) -> None:
    delete(registry, "2", "me", "wrong data")
    assert [v.number for v in registry.versions()] == [1, 3]
    assert registry.audit()[-1]["why"] == "wrong data; bundle digest2"


def test_what_is_not_there_is_one_line(registry: MemoryRegistry) -> None:
    with pytest.raises(DataError, match="9: no such version; there: 1 champion, 2, 3"):
        run(registry, "9", says())


def test_what_is_shown(registry: MemoryRegistry) -> None:
    registry.tag(2, {"git.commit": "0123456789abcdef", "git.dirty": "true", "signature": "development", "test_accuracy": "0.7"})
    version = find(registry.versions(), "2")
    assert facts(version) | {"created": ""} == {
        "created": "", "accuracy": "0.7", "macro_f1": "", "signature": "development", "commit": "01234567 dirty",
    }  # fmt: skip
    run(registry, "2", says())
    found = about(find(registry.versions(), "2"), registry.audit())
    assert (found["bundle"], found["aliases"], [line["to"] for line in found["log"]]) == ("digest2", "champion", ["2"])
