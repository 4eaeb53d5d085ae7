"""The Helm chart, rendered by Helm's own engine, and what the manifests of a deployment are asked in tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from conftest import REPO

CHART = REPO / "deploy/helm/finsight"
BASE = REPO / "deploy/kustomize/base"
CASES = {
    "defaults": None,
    "everything": CHART / "ci/everything-values.yaml",
    "external": CHART / "ci/external-values.yaml",
}
Manifest = dict[str, Any]


def yaml(path: Path) -> Any:
    """One YAML document."""
    return YAML(typ="safe").load(path)


def documents(text: str) -> list[Manifest]:
    """The manifests of a YAML stream."""
    return [one for one in YAML(typ="safe").load_all(text) if one]


def merged(below: Any, above: Any) -> Any:
    """Values over values, as Helm lays them: maps are merged, all else is replaced."""
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    return {**below, **{key: merged(below.get(key), value) for key, value in above.items()}}


def values(case: str) -> Any:
    """The whole values of a case."""
    above = CASES[case]
    return merged(yaml(CHART / "values.yaml"), yaml(above) if above else {})


def named(manifests: Sequence[Manifest]) -> dict[str, Manifest]:
    """Manifests by kind and name."""
    found = {f"{one['kind']}/{one['metadata']['name']}": one for one in manifests}
    assert len(found) == len(manifests), "two manifests have one name"
    return found


def pods(manifests: Sequence[Manifest]) -> dict[str, Manifest]:
    """The spec of each pod that the manifests make, by its owner's kind and name."""
    found = {}
    for name, one in named(manifests).items():
        spec = one.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template:
            found[name] = template["spec"]
    return found


def containers(pod: Manifest) -> Iterator[Manifest]:
    """Its containers, those that prepare it first."""
    yield from pod.get("initContainers", [])
    yield from pod["containers"]


@cache
def tools(folder: Path) -> Path:
    """A folder with the packages of requirements.txt, for PYTHONPATH; skips the test where they are not to be had."""
    wanted = Path(__file__).parent / "deploy/requirements.txt"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--require-hashes", "-r", str(wanted)]
    done = subprocess.run([*pip, "--target", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"tests/deploy/requirements.txt can't be installed here: {done.stderr.strip().splitlines()[-1:]}")
    return folder


_RENDER = """
import json, sys
import helm_python as helm
asked = json.load(sys.stdin)
lint = helm.lint(asked["chart"], asked["values"], strict=True)
with helm.Chart.load(asked["chart"]) as chart:
    try:
        files = chart.render(asked["values"], name="finsight", namespace="finsight", is_install=True)
        refused = ""
    except helm.HelmError as error:
        files, refused = {}, str(error)
json.dump({"lint": lint, "files": files, "refused": refused, "version": helm.helm_sdk_version()}, sys.stdout)
"""


def helm(folder: Path, above: Mapping[str, Any]) -> dict[str, Any]:
    """What Helm says of the chart with some values: `lint`, `files`, or why it was `refused`.

    The library comes as machine code: it runs in a process without our environment.
    """
    asked = json.dumps({"chart": str(CHART), "values": above})
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tools(folder)), "HOME": str(folder)}
    done = subprocess.run([sys.executable, "-c", _RENDER], input=asked, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
