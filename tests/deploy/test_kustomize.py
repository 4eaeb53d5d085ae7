"""What `kubectl kustomize` makes of the base and of the example over it."""

import fcntl
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from charts import BASE, Manifest, containers, dangling, kustomized, named, open_ways, pods, unconfined

EXAMPLE = BASE.parent / "overlays/example"


@pytest.fixture(scope="module", params=["base", "example"])
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return kustomized(BASE if request.param == "base" else EXAMPLE)


@pytest.mark.parametrize("fault", [dangling, open_ways])
def test_all_of_it_fits_together_and_is_closed(manifests: list[Manifest], fault: Callable[[list[Manifest]], list[str]]) -> None:
    assert fault(manifests) == []


def test_pods_are_confined(manifests: list[Manifest]) -> None:
    assert [(name, fault) for name, pod in pods(manifests).items() for fault in unconfined(pod)] == []


def test_the_example_says_all_that_is_ones_own() -> None:
    """No address or bucket of the base is left in it, and no image of its registry."""
    manifests = kustomized(EXAMPLE)
    text = str(manifests)
    assert "git.example" not in text
    assert "s3://finsight/" not in text
    assert "finsight.example" not in text
    images = {one["image"] for pod in pods(manifests).values() for one in containers(pod)}
    assert {image for image in images if not image.startswith(("registry.desk.test/", "docker.io/"))} == set()
    variables = {name: _variables(pod) for name, pod in pods(manifests).items()}
    assert {found.get("DVC_REMOTE") for found in variables.values()} == {None, "s3://desk-finsight/dvc"}
    assert variables["CronJob/finsight-training"]["REPOSITORY"] == variables["Deployment/finsight-api"]["REPOSITORY"]
    have = named(manifests)
    assert have["Namespace/desk"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {one["metadata"].get("namespace", "desk") for one in manifests} == {"desk"}


def _variables(pod: Manifest) -> dict[str, Any]:
    return {each["name"]: each.get("value") for one in containers(pod) for each in one.get("env", [])}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda pod: pod["securityContext"].pop("seccompProfile"), "seccompProfile"),
        (lambda pod: pod["containers"][0]["securityContext"].update(privileged=True), "api: privileged"),
        (lambda pod: pod["initContainers"][0]["securityContext"].update(readOnlyRootFilesystem=False), "clone: readOnlyRootFilesystem"),
        (lambda pod: pod["volumes"].append({"name": "host", "hostPath": {"path": "/"}}), "volume host"),
    ],
)
def test_what_is_not_confined_is_found(change: Callable[[Manifest], Any], fault: str) -> None:
    pod = pods(kustomized(BASE))["Deployment/finsight-api"]
    change(pod)
    assert unconfined(pod) == [fault]


def test_a_way_that_is_open_and_a_name_that_is_nobodys_are_found() -> None:
    manifests = kustomized(BASE)
    have = named(manifests)
    have["NetworkPolicy/finsight-api"]["spec"]["egress"].append({"ports": [{"port": 443}]})
    have["Deployment/finsight-worker"]["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] = "other"
    assert [one.partition(" ")[0] for one in open_ways(manifests)] == ["Deployment/finsight-worker", "egress"]
    have["Service/finsight-redis"]["spec"]["selector"]["app.kubernetes.io/component"] = "nobody"
    assert dangling(manifests) == ["Service/finsight-redis: selects nothing"]


def git(root: Path, *words: str) -> str:
    who = [word for name in ("user.name=t", "user.email=t@example.org", "init.defaultBranch=main") for word in ("-c", name)]
    return subprocess.run(["git", *who, *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def made_origin(root: Path) -> Path:
    """A repository of two commits."""
    root.mkdir()
    git(root, "init", "-q")
    for content in ("first", "second"):
        (root / "file").write_text(content)
        git(root, "add", "file")
        git(root, "commit", "-qm", content)
    return root


def test_the_clone_is_at_the_revision_that_is_named(tmp_path: Path) -> None:
    """The script of the service's init container, on a volume that is kept from one start to the next."""

    def cloned(revision: str) -> str:
        environment = {**os.environ, "REPOSITORY": str(origin), "REVISION": revision, "HOME": str(tmp_path)}
        done = subprocess.run([*one["command"], *one["args"]], cwd=work, env=environment, capture_output=True, text=True)
        return (work / "finsight/file").read_text() if done.returncode == 0 else f"ended with {done.returncode}"

    one = pods(kustomized(BASE))["Deployment/finsight-api"]["initContainers"][0]
    origin, work = made_origin(tmp_path / "origin"), tmp_path / "work"
    work.mkdir()
    first = git(origin, "rev-parse", "HEAD~1")
    assert [cloned("main"), cloned(first)] == ["second", "first"]
    (work / "finsight/file").write_text("left by a training")
    (origin / "file").write_text("third")
    git(origin, "commit", "-qam", "third")
    git(origin, "tag", "v1")
    assert [cloned("main"), cloned(first), cloned("v1")] == ["third", "first", "third"]
    assert cloned("nowhere") == "ended with 128"


def test_a_training_waits_for_the_one_that_still_works_in_its_clone(tmp_path: Path) -> None:
    """An upgrade ends a Job while its successor starts. The clone's script comes first, and waits likewise."""
    pod = pods(kustomized(EXAMPLE))["CronJob/finsight-training"]
    clone, training = (one["args"][0].splitlines() for one in containers(pod))
    assert clone[:2] == training[:2]
    script = "\n".join(training).replace("/work/", f"{tmp_path}/").replace("dvc repro && dvc push", "echo trains")
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [*pod["containers"][0]["command"], script]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr
            assert process.stderr.readline() == "waits for the training that ends\n"
            assert process.poll() is None
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert process.communicate(timeout=20)[0] == "trains\n"
    assert process.returncode == 0


def test_the_clone_of_a_training_that_was_killed_can_be_used_again(tmp_path: Path) -> None:
    """Git leaves its locks behind then, and refuses for good."""
    (one,) = pods(kustomized(EXAMPLE))["CronJob/finsight-training"]["initContainers"]
    script = one["args"][0].partition("dvc remote")[0].replace("/work/", f"{tmp_path}/")
    environment = {**os.environ, "REPOSITORY": str(made_origin(tmp_path / "origin")), "REVISION": "main", "HOME": str(tmp_path)}
    for _ in range(2):
        subprocess.run([*one["command"], script], cwd=tmp_path, env=environment, check=True)
        (tmp_path / "finsight/.git/index.lock").touch()
    assert (tmp_path / "finsight/file").read_text() == "second"
