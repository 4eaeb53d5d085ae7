"""The train stage, run, followed, and waited for in tests."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import time
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import Project
from finsight.modeling.optimisation import average


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


def written_weights(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The first of a model's weights after each step from now on, before it is averaged."""
    written: list[torch.Tensor] = []

    def seen(averages: Sequence[torch.Tensor], weights: Sequence[torch.Tensor], share: float) -> None:
        written.append(weights[0].clone())
        average(averages, weights, share)

    monkeypatch.setattr("finsight.modeling.training.average", seen)
    return written


def with_gpus(env: MutableMapping[str, str], folder: Path, *names: str) -> None:
    """Let the commands of an environment see a driver that knows of these GPUs."""
    driver = folder / "bin/nvidia-smi"
    driver.parent.mkdir()
    driver.write_text("#!/bin/sh\n" + "".join(f"echo '{number}, {name}'\n" for number, name in enumerate(names)))
    driver.chmod(0o755)
    env["PATH"] = f"{driver.parent}{os.pathsep}{env.get('PATH', os.environ['PATH'])}"
