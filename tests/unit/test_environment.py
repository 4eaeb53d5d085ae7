"""What a process may use of its machine."""

from pathlib import Path

import pytest

from finsight.environment import cores, quota


def tree(root: Path, groups: str, **files: str) -> Path:
    """A root with a process's groups, and files of theirs."""
    for name, content in {"proc/self/cgroup": groups, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "found"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),  # a container by version 2
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/", {}, None),  # a machine: the root has no limit to show
        ("0::/docker/a", {"cpu.max": "50000 100000"}, 0.5),  # one that is told the machine's name of its group
        ("0::/a.slice/b.service", {"a.slice/cpu.max": "200000 100000", "a.slice/b.service/cpu.max": "400000 100000"}, 2),
        ("0::/a.slice/b.service", {"a.slice/cpu.max": "max 100000", "a.slice/b.service/cpu.max": "400000 100000"}, 4),
        ("3:cpu,cpuacct:/\n0::/", {"cpu,cpuacct/cpu.cfs_quota_us": "300000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 3),  # version 1
        ("3:cpu,cpuacct:/d/a", {"cpu,cpuacct/d/a/cpu.cfs_quota_us": "50000", "cpu,cpuacct/d/a/cpu.cfs_period_us": "50000"}, 1),
        ("3:cpu:/\n4:cpuset:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("4:cpuset:/", {"cpuset/cpu.cfs_quota_us": "100000", "cpuset/cpu.cfs_period_us": "100000"}, None),
        ("0::/", {"cpu.max": "nothing of the kind"}, None),
    ],
)
def test_a_quota_is_that_of_the_narrowest_group(tmp_path: Path, groups: str, files: dict[str, str], found: float | None) -> None:
    root = tree(tmp_path, f"{groups}\n", **{f"sys/fs/cgroup/{name}": f"{content}\n" for name, content in files.items()})
    assert quota(root) == found


def test_cores_are_no_more_than_the_quota_is_worth_and_one_at_least(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert cores(tmp_path) == 64, "no control groups"
    for limit, expected in {"150000": 2, "10000": 1, "9900000": 64, "max": 64}.items():
        tree(tmp_path, "0::/\n", **{"sys/fs/cgroup/cpu.max": f"{limit} 100000\n"})
        assert cores(tmp_path) == expected
