"""A driver that hangs: who asks it can't be killed, and nobody waits for it."""

import subprocess
import time
from pathlib import Path

import pytest

from finsight.adapters import gpus


def driver(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_who_can_not_be_killed_is_left_alone_and_asked_again_once_it_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(tmp_path, monkeypatch, f"echo asked >> {tmp_path}/asked; exec sleep 20")
    kill, began = subprocess.Popen.kill, time.monotonic()
    monkeypatch.setattr(subprocess.Popen, "kill", lambda _: None)  # as for one in an uninterruptible sleep
    assert gpus.gpu_use(0.5) == []
    assert gpus.gpu_use(0.5) == []
    assert time.monotonic() - began < 10
    assert (tmp_path / "asked").read_text() == "asked\n", "no second one while the first hangs"
    (process,) = gpus._hanging
    kill(process)
    process.wait(10)
    driver(tmp_path, monkeypatch, "echo 0, GPU-1")
    assert gpus.gpus() == ["GPU-1"]


def test_one_that_can_be_killed_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(tmp_path, monkeypatch, "exec sleep 20")
    assert gpus.gpu_use(0.3) == []
    assert gpus._hanging == []
    driver(tmp_path, monkeypatch, "echo GPU-1, 50, 1024, 2048, [N/A], 60")
    (use,) = gpus.gpu_use()
    assert (use.uuid, use.busy, use.memory_used, use.power) == ("GPU-1", 0.5, 2**30, None)
