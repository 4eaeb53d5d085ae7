"""The train stage, run, followed, and waited for in tests."""

from __future__ import annotations

import csv
import json
import subprocess
import time
from pathlib import Path
from typing import Any

from conftest import Project


def trained(project: Project) -> dict[str, Any]:
    project.run("train")
    return project.json("train.json")


def curves(project: Project) -> list[dict[str, float]]:
    with (project.root / "reports/plots/curves.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def steps(project: Project) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (project.root / "reports/steps.jsonl").read_text().splitlines()]


def states(project: Project) -> list[Path]:
    return sorted((project.root / "cache/training").glob("*.safetensors"))


def started(project: Project, **kwargs: Any) -> subprocess.Popen[str]:
    (project.root / "reports/steps.jsonl").unlink(missing_ok=True)  # as DVC does
    return project.start("train", **kwargs)


def wait_for_a_step(project: Project, process: subprocess.Popen[str], step: int) -> None:
    path = project.root / "reports/steps.jsonl"
    deadline = time.monotonic() + 240
    while not path.exists() or path.read_text().count("\n") < step:
        assert process.poll() is None, "it ended before the step"
        assert time.monotonic() < deadline, "no step was seen"
        time.sleep(0.01)
