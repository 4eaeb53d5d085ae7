"""The policy's file: the one that is shipped, what a wrong one is told, and that a change counts at once."""

import logging
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from finsight.cli import main
from finsight.domain.actions import ACTIONS
from finsight.domain.policy import Policy
from finsight.errors import ParamsError
from finsight.service.policy_file import DEFAULT, PolicyFile, read_policy

GOOD = "roles:\n  viewer:\n    allow: [jobs.read]\n"


def wrong(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(ParamsError) as caught:
        read_policy(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD + "rule: 1\n", "rule: unknown key"),
        (GOOD + "    alow: [predict]\n", "roles.viewer.alow: unknown key"),
        ("roles:\n  viewer:\n    allow: [jobs.reed]\n", "roles.viewer.allow.0: no action is 'jobs.reed'"),
        ("roles:\n  viewer:\n    includes: [nobody]\n", "roles.viewer.includes: nobody is no role of viewer"),
        (GOOD + "grants: [{roles: [boss], actions: [predict], when: {}}]\n", "grants.0.roles: boss is no role"),
        (GOOD + "refusals: [{actions: [predict], unless: [boss], because: x}]\n", "refusals.0.unless: boss is no role"),
        (GOOD + "refusals: [{actions: [predict], because: x, when: {hours: 9-17}}]\n", "refusals.0.when.hours: expected hours as"),
        (GOOD + "grants: [{roles: [viewer], actions: [predict], when: {models: [x]}}]\n", "grants.0.when.models: predict is about no"),
        (GOOD + "refusals: [{actions: [predict], because: x, when: {weekdays: [someday]}}]\n", "refusals.0.when.weekdays"),
        ("roles: [\n", "not valid YAML"),
        ("", "expected a mapping"),
        ("grants: []\n", "roles: Field required"),
    ],
)
def test_a_wrong_file_is_one_line_with_path_and_key(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "policy.yaml"
    message = wrong(path, text)
    assert message.startswith(f"{path}: ")
    assert says in message
    assert "\n" not in message


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="no such file; FINSIGHT_POLICY"):
        read_policy(tmp_path / "none.yaml")


def test_all_lines_of_a_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    commented = DEFAULT.read_text().splitlines()
    # The examples in the comments are part of the documentation, so they have to be good.
    lines = [line.removeprefix("#") if line.startswith("#   ") else line for line in commented]
    path.write_text("\n".join(line for line in lines if not line.endswith(": []")).replace("\n#", "\n  #"))
    text = path.read_text()
    for key, first in (("grants", "- roles"), ("refusals", "- actions"), ("shares", "- kind")):
        text = text.replace(f"   {first}", f"{key}:\n   {first}", 1)
    path.write_text(text)
    policy = read_policy(path)
    assert (len(policy.grants), len(policy.refusals), len(policy.shares)) == (1, 1, 1)


def touch(path: Path, text: str) -> None:
    before = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))


def test_a_change_counts_at_once_and_a_wrong_one_never(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def allowed(policy: Policy) -> frozenset[str]:
        return policy.roles["viewer"].allow

    path = tmp_path / "policy.yaml"
    path.write_text(GOOD)
    file = PolicyFile(path)
    assert allowed(file.current()) == {"jobs.read"}
    touch(path, GOOD.replace("jobs.read", "predict"))
    assert allowed(file.current()) == {"predict"}
    caplog.clear()
    touch(path, "roles: 5\n")
    assert allowed(file.current()) == allowed(file.current()) == {"predict"}
    (line,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert str(path) in line.getMessage()
    assert "roles" in line.getMessage()
    path.unlink()
    assert allowed(file.current()) == {"predict"}
    path.write_text(GOOD)
    assert allowed(file.current()) == {"jobs.read"}


def test_show_prints_each_role_and_action() -> None:
    shown = CliRunner().invoke(main, ["policy", "show"])
    assert shown.exit_code == 0, shown.output
    rows = {line.split()[0]: line.split()[1:] for line in shown.stdout.splitlines()}
    assert rows["action"] == ["viewer", "scorer", "trainer", "releaser", "monitor", "admin"]
    assert rows.keys() == {"action", *ACTIONS}
    assert rows["jobs.cancel"] == ["·", "own", "yes", "·", "·", "yes"]
    assert rows["audit.read"] == ["·", "·", "·", "·", "·", "yes"]


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--role", "viewer", "--action", "models.promote"], 3, "refused: no role of viewer allows it"),
        (["--role", "releaser", "--action", "models.promote"], 0, "allowed: role releaser allows it"),
        (["--role", "admin", "--action", "jobs.read", "--of-tenant", "other"], 3, "another tenant's"),
        (["--role", "boss", "--action", "jobs.read"], 1, "boss is no role of"),
        (["--role", "admin", "--action", "jobs.reed"], 1, "jobs.reed is no action"),
        (["--role", "admin", "--action", "jobs.read", "--scope", "predict"], 3, "narrowed to predict"),
        (["--role", "admin", "--action", "jobs.read", "--scope", "jobs.*"], 0, "allowed: role viewer allows it"),
        (["--role", "admin", "--action", "jobs.read", "--scope", "jobs.reed"], 1, "--scope: jobs.reed is no action"),
    ],
)
def test_check_says_why(options: list[str], code: int, says: str) -> None:
    done = CliRunner().invoke(main, ["policy", "check", *options])
    assert done.exit_code == code, done.output
    assert says in done.output


def test_check_knows_time_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(
        GOOD
        + "refusals: [{actions: [jobs.read], because: closed, when: {environments: [production], weekdays: [sat], hours: 12:00-13:00}}]\n"
    )
    monkeypatch.setenv("FINSIGHT_POLICY", str(path))
    asked = ["policy", "check", "--role", "viewer", "--action", "jobs.read", "--environment"]
    assert "closed" in CliRunner().invoke(main, [*asked, "production", "--at", "2026-11-28T12:30"]).output
    assert CliRunner().invoke(main, [*asked, "production", "--at", "2026-11-28T13:00"]).exit_code == 0
    assert CliRunner().invoke(main, [*asked, "staging", "--at", "2026-11-28T12:30"]).exit_code == 0
