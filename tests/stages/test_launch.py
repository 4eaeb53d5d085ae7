"""The train stage in several processes and on several machines: what comes of it, and what becomes of it when one of them is lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from conftest import REPO, Project
from finsight.cli.join import join
from finsight.errors import ParamsError
from finsight.params.file import load_params, on_this_machine
from finsight.pipeline.train import divided
from servers import free_port
from trainings import curves, started, states, steps, trained, wait_for_a_step

# Sums come in another order: at most so much in a metric, and in a weight after 66 steps.
BOUND = 1e-4


@pytest.fixture(scope="module")
def prepared(make_project: Callable[[str], Project]) -> Project:
    """A project that is ready to train, for a few dozen steps of two batches; tests copy it."""
    project = make_project("launch")
    project.set(train__epochs=3, train__batch_tokens=128, train__accumulation=2, train__lr=0.003, train__save_every=0.0, train__threads=1)
    project.run("ingest", "validate", "prepare")
    return project


@pytest.fixture(scope="module")
def alone(prepared: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """What one process makes of it."""
    project = copied(prepared, tmp_path_factory.mktemp("alone") / "project")
    assert trained(project)["processes"] == 1
    return project


@pytest.fixture(scope="module", params=[False, True], ids=["whole", "sharded"])
def together(prepared: Project, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Project:
    """What two processes make of it, uninterrupted."""
    project = copied(prepared, tmp_path_factory.mktemp("together") / "project")
    project.set(train__launch__processes=2, train__launch__sharded=request.param)
    assert trained(project)["processes"] == 2, "a launch can silently start one process"
    return project


def copied(project: Project, root: Path) -> Project:
    """A clone of a project on a machine of its own: with a cache that nobody else has."""
    shutil.copytree(project.root, root, ignore=shutil.ignore_patterns("cache", "checkpoint"))
    env = {**project.env, "FINSIGHT_CACHE": str(root / "cache"), "MLFLOW_TRACKING_URI": f"sqlite:///{root}/mlflow.db"}
    return Project(root, project.backbone, env)


def weights(project: Project) -> dict[str, torch.Tensor]:
    files = list((project.root / "models/checkpoint").glob("*.safetensors"))
    assert len(files) == 1, "one file, however many processes there were"
    return load_file(files[0])


def assert_alike(project: Project, other: Project) -> None:
    for found, wanted in zip(curves(project), curves(other), strict=True):
        assert found == pytest.approx(wanted, abs=BOUND)
    ours, theirs = weights(project), weights(other)
    assert ours.keys() == theirs.keys()
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < BOUND


def checkpoint(project: Project) -> str:
    return str(project.json("train.json")["checkpoint_sha256"])


def launch(**changes: object) -> str:
    return ",".join(f"{key}={value}" for key, value in changes.items())


class Hosts:
    """Two machines with nothing in common but an address; each has a clone and a cache of its own."""

    def __init__(self, prepared: Project, folder: Path, namespaces: tuple[str, str] | None = None, host: str = "127.0.0.1") -> None:
        self.namespaces, self.port, self.host = namespaces, free_port(), host
        self.projects = tuple(copied(prepared, folder / name) for name in ("first", "second"))

    def start(self, rank: int, **changes: object) -> subprocess.Popen[str]:
        project = self.projects[rank]
        (project.root / "reports/steps.jsonl").unlink(missing_ok=True)
        said = launch(nodes=2, node_rank=rank, rendezvous=f"{self.host}:{self.port}", **changes)
        enter = ["ip", "netns", "exec", self.namespaces[1 - rank]] if self.namespaces else []
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        environment = {**os.environ, **project.env, "FINSIGHT_LAUNCH": said}
        return subprocess.Popen([*enter, *project.command("train")], cwd=project.root, env=environment, text=True, **pipes)


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str]]:
    """Two network namespaces, 10.231.7.1 and 10.231.7.2, with a wire between them; the first machine is in the second."""
    names = (f"finsight-a-{os.getpid()}", f"finsight-b-{os.getpid()}")
    ends = (f"fa{os.getpid()}", f"fb{os.getpid()}")
    lines = [f"netns add {name}" for name in names] + [f"link add {ends[0]} type veth peer name {ends[1]}"]
    for number, (name, end) in enumerate(zip(names, ends, strict=True), 1):
        lines += [f"link set {end} netns {name}", f"-n {name} addr add 10.231.7.{number}/24 dev {end}", f"-n {name} link set {end} up"]
        lines += [f"-n {name} link set lo up"]
    try:
        for line in lines:
            if not shutil.which("ip") or subprocess.run(["ip", *line.split()], capture_output=True).returncode:
                pytest.skip("network namespaces can't be made here: that needs root on Linux and iproute2; the test on loopback has run")
        yield names
    finally:
        for name in names if shutil.which("ip") else ():
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def workers(process: subprocess.Popen[str]) -> list[int]:
    """The processes that train, of the one that started them."""
    return [int(pid) for task in Path(f"/proc/{process.pid}/task").iterdir() for pid in (task / "children").read_text().split()]


def errors(text: str) -> list[str]:
    assert "Traceback" not in text, text
    return [line for line in text.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize(
    ("tokens", "accumulation", "processes", "expected"),
    [(1024, 1, 1, (1024, 1)), (1024, 1, 2, (512, 2)), (1024, 4, 2, (1024, 4)), (900, 2, 3, (600, 3))],
)
def test_a_step_stays_what_it_was(tokens: int, accumulation: int, processes: int, expected: tuple[int, int]) -> None:
    recipe = load_params().train.model_copy(update={"batch_tokens": tokens, "accumulation": accumulation})
    found = divided(recipe, processes)
    assert (found.batch_tokens, found.accumulation) == expected


def test_a_step_that_is_too_small_for_so_many_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"train\.batch_tokens: a step of 1 x 1024 tokens is too small for 200 processes"):
        divided(load_params().train, 200)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"nodes": "two"}, "FINSIGHT_LAUNCH: nodes: got 'two'"),
        ({"node": "2"}, "FINSIGHT_LAUNCH: node: unknown key; allowed: processes, nodes"),
        ({"nodes": "2"}, "FINSIGHT_LAUNCH: .*several nodes need rendezvous"),
        ({"rendezvous": "first"}, "FINSIGHT_LAUNCH: rendezvous: got 'first'"),
    ],
)
def test_a_launch_of_this_machine_that_can_not_be_is_refused(said: dict[str, str], error: str) -> None:
    with pytest.raises(ParamsError, match=error):
        on_this_machine(load_params().train, said)
    found = on_this_machine(load_params().train, {"nodes": "2", "node_rank": "1", "rendezvous": "first:29500", "sharded": "true"})
    assert (found.launch.nodes, found.launch.node_rank, found.launch.sharded) == (2, 1, True)


def test_who_joins_is_a_further_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would else train by itself, and write outputs that DVC knows nothing of."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(REPO / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    became: list[list[str]] = []
    monkeypatch.setattr(os, "execvp", lambda _, command: became.append(command))
    refused = CliRunner().invoke(join)
    assert (refused.exit_code, became) == (1, [])
    assert refused.stderr.startswith("error: train.launch: this is the first machine, on which `dvc repro` trains; on a further")
    monkeypatch.setenv("FINSIGHT_LAUNCH", launch(nodes=2, node_rank=1, rendezvous="gpu-1.example:29500"))
    assert CliRunner().invoke(join).exit_code == 0
    assert became[0][:2] == ["stages/run", "train"]


@pytest.mark.long
def test_two_processes_do_what_one_does(alone: Project, together: Project) -> None:
    assert_alike(together, alone)


@pytest.mark.long
@pytest.mark.parametrize("sharded", [False, True])
def test_two_processes_push_average_and_read_first_as_one_does(prepared: Project, tmp_path: Path, sharded: bool) -> None:
    alone, together = copied(prepared, tmp_path / "alone"), copied(prepared, tmp_path / "together")
    for project in (alone, together):
        project.set(train__awp=0.002, train__swa=0.5, train__adapt__epochs=1)
    together.set(train__launch__processes=2, train__launch__sharded=sharded)
    assert (trained(alone)["processes"], trained(together)["processes"]) == (1, 2)
    assert_alike(together, alone)


@pytest.mark.long
@pytest.mark.parametrize("in_namespaces", [False, True])
def test_two_machines_do_what_one_does(
    prepared: Project, alone: Project, tmp_path: Path, request: pytest.FixtureRequest, in_namespaces: bool
) -> None:
    where = (request.getfixturevalue("namespaces"), "10.231.7.2") if in_namespaces else (None, "127.0.0.1")
    hosts = Hosts(prepared, tmp_path, *where)
    with hosts.start(1) as other, hosts.start(0) as one:  # torchrun ranks them by address, then by process: the first is the second here
        _, err = one.communicate()
        _, other_err = other.communicate()
    assert (one.returncode, other.returncode) == (0, 0), err + other_err
    first, second = hosts.projects
    assert first.json("train.json")["processes"] == 2
    assert_alike(first, alone)
    assert not (second.root / "models/checkpoint").exists(), "one of them writes"


@pytest.mark.long
def test_a_killed_process_costs_what_was_done_since_the_last_state(together: Project, tmp_path: Path) -> None:
    project = copied(together, tmp_path / "project")
    with started(project) as process:
        wait_for_a_step(project, process, 8)
        os.kill(workers(process)[1], signal.SIGKILL)
        _, err = process.communicate()
    assert process.returncode == 0, err
    assert "all begin again from the last state, restart 1 of 3" in err
    assert steps(project)[0]["step"] > 6, "it did not begin anew"
    assert checkpoint(project) == checkpoint(together)
    assert states(project) == []


@pytest.mark.long
def test_when_no_restart_is_left_the_same_command_goes_on(together: Project, tmp_path: Path) -> None:
    project = copied(together, tmp_path / "project")
    project.set(train__launch__restarts=0)
    with started(project) as process:
        wait_for_a_step(project, process, 8)
        os.kill(workers(process)[0], signal.SIGKILL)
        _, err = process.communicate()
    assert process.returncode == 1
    assert errors(err)[-1].startswith("error: train: ")
    assert errors(err)[-1].endswith(", after 0 restarts; the same command goes on from the last state")
    assert len(states(project)) == 1
    with started(project, start_new_session=True) as process:  # and all of them at once
        wait_for_a_step(project, process, 2)
        os.killpg(process.pid, signal.SIGKILL)
    trained(project)
    assert steps(project)[0]["step"] > 8
    assert checkpoint(project) == checkpoint(together)


@pytest.mark.long
def test_a_machine_that_is_lost_ends_the_other_in_one_line_or_comes_back(prepared: Project, alone: Project, tmp_path: Path) -> None:
    """Both go on from the first's state: the other has none."""
    hosts = Hosts(prepared, tmp_path)
    first = hosts.projects[0]
    with hosts.start(1) as other, hosts.start(0, wait=4) as one:
        wait_for_a_step(first, one, 8)
        other.kill()
        other.communicate()
        _, err = one.communicate()
    assert one.returncode == 1
    assert errors(err)[-1].startswith(f"error: train.launch.rendezvous: 127.0.0.1:{hosts.port}: ")
    assert errors(err)[-1].endswith("start the command on all 2 nodes: it goes on from the last state")
    assert len(states(first)) == 1
    with hosts.start(1) as other, hosts.start(0) as one:
        wait_for_a_step(first, one, 8)
        assert steps(first)[0]["step"] > 6
        other.kill()
        other.communicate()
        with hosts.start(1) as again:
            _, err = one.communicate()
            again.communicate()
    assert (one.returncode, again.returncode) == (0, 0), err
    assert "a process lost the others; all begin again from the last state, restart 1 of 3" in err
    assert steps(first)[0]["step"] > 12
    assert_alike(first, alone)


@pytest.mark.long
def test_a_machine_whose_first_is_away_says_so(prepared: Project, tmp_path: Path) -> None:
    hosts = Hosts(prepared, tmp_path)
    with hosts.start(1, wait=1) as other:
        _, err = other.communicate()
    assert errors(err) == [
        f"error: train.launch.rendezvous: 127.0.0.1:{hosts.port}: Connection refused; start the command on node 0, or correct it"
    ]


@pytest.mark.long
def test_machines_with_different_data_are_told(prepared: Project, tmp_path: Path) -> None:
    hosts = Hosts(prepared, tmp_path)
    hosts.projects[1].set(train__weight_decay=0.02)
    with hosts.start(1) as other, hosts.start(0) as one:
        _, err = one.communicate()
        other.communicate()
    assert one.returncode == 1
    assert other.returncode == 1
    assert any("train.launch: the machines differ in data, parameters" in line for line in errors(err))


@pytest.mark.long
def test_sigterm_ends_two_processes_with_one_line(prepared: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(prepared)
    project.set(train__launch__processes=2, train__epochs=50)
    with started(project) as process:
        wait_for_a_step(project, process, 2)
        process.terminate()
        _, err = process.communicate()
    assert process.returncode == 1
    assert "error: train: SIGTERM ended the processes; the same command goes on from the last state" in errors(err)
    assert len(states(project)) == 1


# One of two processes fails and takes a moment to end, as one that closes its run in a tracker does; the other waits for its part.
ONE_FAILS = """
import click, time, torch
from finsight.command import edge
from finsight.errors import ParamsError
from finsight.modeling.distributed import add_up, joined
from finsight.params.file import load_params

@click.command()
@edge
def main():
    try:
        with joined("cpu", load_params().train.launch) as world:
            if world.rank == 1:
                raise ParamsError("train.batch_tokens: 1024 tokens a batch do not fit")
            add_up(world, [torch.ones(1)])
    except ParamsError:
        time.sleep(1)
        raise

main()
"""


@pytest.mark.long
def test_a_process_that_knows_what_is_wrong_is_heard_before_those_that_lose_it(tmp_path: Path) -> None:
    script = tmp_path / "one_fails.py"
    script.write_text(ONE_FAILS)
    shutil.copyfile(REPO / "params.yaml", tmp_path / "params.yaml")
    start = (
        "import sys; from finsight.adapters.torchrun import relaunched; from finsight.params.file import load_params;"
        "recipe = load_params().train.launch.model_copy(update={'processes': 2});"
        "relaunched(recipe, [sys.argv[1]], lambda said: print(said, file=sys.stderr))"
    )
    found = subprocess.run([sys.executable, "-c", start, str(script)], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 1
    assert "restart" not in found.stderr
    assert found.stderr.count("error: train.batch_tokens: 1024 tokens a batch do not fit") == 1


@pytest.mark.long
def test_an_error_in_both_of_two_processes_is_one_line(prepared: Project, copy_of: Callable[[Project], Project]) -> None:
    """It would be there again: nothing is started again for it."""
    project = copy_of(prepared)
    project.set(train__launch__processes=2, train__lr=1e30, train__max_grad_norm=1e30)
    with project.start("train") as process:
        _, err = process.communicate()
    assert process.returncode == 1
    assert "restart" not in err
    assert {line.split(" makes")[0] for line in errors(err)} == {"error: train.lr: 1e+30"}
