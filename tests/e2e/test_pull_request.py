"""The scripts of the pull request's workflow, run as its runner does, on a clone with two branches and a GitHub on loopback."""

import html
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from clones import Clone, copy_tree, environment
from conftest import LOOSE_INT8, REPO, Project, starter_rows, write_csv
from github import BOT, TOKEN, GitHub, serve_github

WORKFLOW: dict[str, Any] = YAML(typ="safe").load((REPO / ".github/workflows/pr-metrics.yaml").read_text())
JOBS = WORKFLOW["jobs"]
MARKER = "<!-- finsight metrics -->"


@dataclass
class Runner:
    """A job's machine: the tree that was checked out, and what the platform sets."""

    tree: Clone
    temp: Path
    event: dict[str, str]

    def run(self, job: str) -> tuple[int, str]:
        """Run the scripts of a job's steps; how the job ended, what they printed."""
        ended, printed = 0, ""
        for step in JOBS[job]["steps"]:
            if step.get("run") in (None, "make setup") or (ended and "!cancelled()" not in step.get("if", "")):
                continue  # actions, and the environment that the tests run in
            script = self.temp / "step.sh"
            script.write_text(step["run"])
            env = {key: re.sub(r"\${{ (\S+) }}", lambda match: self.event[match[1]], value) for key, value in step.get("env", {}).items()}
            done = subprocess.run(["bash", "-e", script], cwd=self.tree.root, env=self.tree.env | env, text=True, capture_output=True)
            ended, printed = ended or done.returncode, printed + done.stdout + done.stderr
        return ended, printed

    @property
    def summary(self) -> str:
        return (self.temp / "summary.md").read_text()


def platform(temp: Path, url: str = "https://github.com") -> dict[str, str]:
    named = {"GITHUB_ACTIONS": "true", "GITHUB_BASE_REF": "main", "GITHUB_REPOSITORY": "owner/model", "GITHUB_RUN_ID": "12"}
    return named | {"GITHUB_SERVER_URL": url, "GITHUB_STEP_SUMMARY": str(temp / "summary.md"), "RUNNER_TEMP": str(temp)}


@pytest.fixture(scope="module")
def main(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Clone:
    """240 rows and the tiny backbone: branch main reproduced, committed and pushed, branch slower with another rate."""
    run = copy_tree(tmp_path_factory.mktemp("pull") / "main", leave_out=("data/starter/",))
    write_csv(run.root / "data/starter/rows.csv", starter_rows(240))
    tiny = {"train__backbone": str(tiny_backbone), "train__epochs": 1, "train__lr": 0.01, "train__threads": 1}
    project = Project(run.root, tiny_backbone)
    project.set(**tiny, export__gates=LOOSE_INT8, gates__at_most={})
    run("git", "add", "-A")
    run("git", "commit", "-qm", "first")
    run("dvc", "repro", "export")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "reproduced")
    run("dvc", "push", "-q")
    run("git", "checkout", "-qb", "unreproduced")
    project.set(train__lr=0.005)
    run("git", "commit", "-qam", "slower")
    run("git", "branch", "slower")
    run("git", "rm", "-q", "--cached", "dvc.lock")
    project.set(export__opset=18)
    run("git", "commit", "-qam", "as slower, with another opset, and nobody has reproduced it")
    run("git", "checkout", "-qf", "main")
    return run


@pytest.fixture(scope="module")
def runner(main: Clone, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """The machine of job `metrics`: main and slower merged in a fresh clone."""
    temp = tmp_path_factory.mktemp("runner")
    tree = Clone(main.root.parent / "tree", main.env | platform(temp))
    main("git", "clone", "-q", str(main.root), str(tree.root))
    tree("git", "checkout", "-q", "--detach", "origin/main")
    tree("git", "merge", "-q", "--no-ff", "origin/slower")
    head = tree("git", "rev-parse", "origin/slower").strip()
    event = {"github.event.pull_request.head.sha": head, "secrets.AWS_ACCESS_KEY_ID": "", "secrets.AWS_SECRET_ACCESS_KEY": ""}
    return Runner(tree, temp, event)


@pytest.fixture
def github(tmp_path: Path) -> Iterator[GitHub]:
    if not shutil.which("gh"):
        pytest.skip("gh is not there; https://cli.github.com, or apt-get install gh")
    with serve_github(tmp_path) as state:
        yield state


def commenter(github: GitHub, temp: Path) -> Runner:
    """The machine of job `comment`: no data, no environment of Python's, a token."""
    env = environment(REPO) | platform(temp, github.url) | {"SSL_CERT_FILE": str(github.certificates), "GH_CONFIG_DIR": str(temp)}
    return Runner(Clone(REPO, env), temp, {"github.token": TOKEN, "github.event.pull_request.number": "7"})


@pytest.mark.long
def test_one_comment_is_made_and_kept_up_to_date(main: Clone, runner: Runner, github: GitHub) -> None:
    stranger = github.say("somebody", f"{MARKER} mine")
    ended, printed = runner.run("metrics")
    assert ended == 0, printed
    assert main.ran(printed) == ["train", "evaluate", "export"]
    ended, printed = commenter(github, runner.temp).run("comment")
    assert ended == 0, printed
    (comment,) = github.by(BOT)
    body = comment["body"]
    assert body.startswith(f"{MARKER}\n## ")
    assert "in macro&#95;f1: " in body
    assert "gates passed" in body
    assert "| macro&#95;f1 (primary) |" in body
    assert "| train.lr | 0.01 | 0.005 |" in body
    assert f"<sub>{runner.event['github.event.pull_request.head.sha'][:7]} against origin/main · [run](https://" in body
    images = re.findall(rf"!\[[^]]*\]\({github.url}/owner/model/blob/(\w{{40}})/(pull/7/([\w-]+\.png))\?raw=true\)", body)
    assert images
    assert len(images) == body.count("![")
    for commit, path, name in images:
        assert github.git("show", f"{commit}:{path}") == (runner.temp / "metrics" / name).read_bytes().strip()
    assert "## " in runner.summary
    assert "![" not in runner.summary

    Project(runner.tree.root, Path()).set(gates__at_least={"accuracy": 1.01})
    github.rivals = 1
    ended, printed = runner.run("metrics")
    assert ended != 0
    assert main.ran(printed) == []
    assert "error: gates.at_least.accuracy" in printed
    assert "gate failed: gates.at_least.accuracy" in html.unescape(runner.summary)
    ended, printed = commenter(github, runner.temp).run("comment")
    assert ended == 0, printed
    assert github.by(BOT) == [comment]
    assert "gate failed: gates.at_least.accuracy" in html.unescape(comment["body"])
    assert comment["body"].count("/blob/") == len(images)
    assert images[0][0] not in comment["body"]
    assert github.git("rev-list", "--count", "pr-metrics-images") == b"2"
    assert stranger["body"] == f"{MARKER} mine"


@pytest.mark.long
def test_a_base_whose_predictions_are_nowhere_is_reproduced(runner: Runner, tmp_path: Path) -> None:
    runner.tree("git", "checkout", "-q", "params.yaml")
    runner.tree("dvc", "repro", "export")  # already done where the first test of this module ran
    printed = runner.tree(".ci/pr-metrics", "origin/unreproduced", str(tmp_path))
    _, mine, base = re.split("no remote has all of it|it is reproduced", printed)
    assert runner.tree.ran(mine) == []
    assert runner.tree.ran(base) == ["export"]
    body = (tmp_path / "comment.md").read_text()
    assert "in macro&#95;f1: " in body
    assert "| export.opset | 18 | 20 |" in body
    assert re.search(r"against origin/unreproduced, which was reproduced as \w{7}", body)


@pytest.mark.long
def test_a_base_without_predictions_is_one_line(runner: Runner, tmp_path: Path) -> None:
    nothing = runner.tree("git", "hash-object", "-wt", "tree", "/dev/null").strip()
    runner.tree("git", "tag", "empty", runner.tree("git", "commit-tree", nothing, "-m", "nothing").strip())
    printed = runner.tree(".ci/pr-metrics", "empty", str(tmp_path), ok=False)
    said = "error: empty: it has no reports/predictions.parquet; `dvc repro evaluate` writes it there"
    assert said in printed
    assert "Traceback" not in printed
    assert (tmp_path / "comment.md").read_text().startswith(f"## 🔴 no comparison with empty\n\n    {said}\n\n<sub>")


def test_a_comment_that_would_be_too_long_loses_whole_sections(github: GitHub, tmp_path: Path) -> None:
    row = "| é |\n"
    sections = [f"<details><summary>{n}</summary>\n\n{row * rows}\n</details>\n" for n, rows in enumerate((100, 12000, 200))]
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/comment.md").write_text("## ⚪ same\n\n" + "\n".join(sections))
    ended, printed = commenter(github, tmp_path).run("comment")
    assert ended == 0, printed
    body = github.by(BOT)[0]["body"]
    assert len(body) < 65_536
    assert re.findall(r"<summary>(\d)", body) == ["0", "2"]
    assert body.count("<details>") == body.count("</details>") == 2
    assert "Too long for a comment: 1 sections" in body
    assert b"pr-metrics-images" not in github.git("branch", "-a")


def test_a_fork_reads_and_nothing_more() -> None:
    assert WORKFLOW["on"] == "pull_request"
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert "permissions" not in JOBS["metrics"]
    assert JOBS["comment"]["permissions"] == {"contents": "write", "pull-requests": "write"}
    assert "github.event.pull_request.head.repo.full_name == github.repository" in JOBS["comment"]["if"]
    (checkout,) = (step["with"] for step in JOBS["comment"]["steps"] if "checkout" in step.get("uses", ""))
    assert checkout["ref"] == "${{ github.event.pull_request.base.sha }}"
    for job in JOBS.values():
        for step in job["steps"]:
            assert "${{" not in step.get("run", ""), "an expression in a script is code that others may write"
            assert re.fullmatch(r"actions/[\w/-]+@[0-9a-f]{40}", step.get("uses", f"actions/none@{'0' * 40}"))
            assert step.get("with", {}).get("persist-credentials", False) is False
            assert "secrets." not in str(step) or ".ci/pr-metrics" in step["run"]
