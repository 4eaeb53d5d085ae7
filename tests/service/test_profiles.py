"""Where the time of a command and of a service went, in a file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Project
from serving import serving


@pytest.mark.long
def test_a_command_leaves_a_profile_in_the_form_that_the_files_name_asks_for(in_folder: Path) -> None:
    def finsight(file: str, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "finsight.cli", "--profile", file, *command], capture_output=True, text=True)

    assert finsight("where.json", "policy", "show").returncode == 0
    assert json.loads(Path("where.json").read_text())["$schema"].startswith("https://www.speedscope.app")
    failed = finsight("where.txt", "fastest", "nothing")  # one that fails has taken time, too
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[0].startswith("error: nothing")
    assert "Duration" in Path("where.txt").read_text()
    lacking = finsight("no/where.txt", "policy", "show")
    assert lacking.returncode == 2
    assert "its folder is not there" in lacking.stderr
    assert lacking.stdout == ""


@pytest.mark.long
def test_a_service_leaves_one_when_it_ends(finished: Project, tmp_path: Path) -> None:
    with serving(finished.root, "--profile", str(tmp_path / "where.html")) as (client, _):
        assert client.post("/v1/predict", json={"texts": ["Profit rose"]}).status_code == 200
    assert "<html" in (tmp_path / "where.html").read_text()
