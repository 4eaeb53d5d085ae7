"""The Helm chart, rendered by Helm's own engine, and what the manifests of a deployment are asked in tests."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
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
    "machines": CHART / "ci/machines-values.yaml",
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


def templates(manifests: Sequence[Manifest]) -> dict[str, Manifest]:
    """The template of each pod that the manifests make, by its owner's kind and name, and of Ray's by their part, too."""
    found = {}
    for name, one in named(manifests).items():
        spec = one.get("spec", {})
        ray = spec.get("rayClusterSpec")
        parts = {"head": ray["headGroupSpec"], **{each["groupName"]: each for each in ray["workerGroupSpecs"]}} if ray else {}
        found |= {f"{name}/{part}": its["template"] for part, its in parts.items()}
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        found |= {name: template} if template else {}
    return found


def pods(manifests: Sequence[Manifest]) -> dict[str, Manifest]:
    """The spec of each pod that the manifests make, likewise."""
    return {name: template["spec"] for name, template in templates(manifests).items()}


def containers(pod: Manifest) -> Iterator[Manifest]:
    """Its containers, those that prepare it first."""
    yield from pod.get("initContainers", [])
    yield from pod["containers"]


@cache
def tools() -> Path:
    """A folder with the packages of requirements.txt, for PYTHONPATH; skips the test where they are not to be had."""
    folder = Path(tempfile.mkdtemp(prefix="finsight-deploy-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
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


def helm(above: Mapping[str, Any]) -> dict[str, Any]:
    """What Helm says of the chart with some values: `lint`, `files`, or why it was `refused`.

    The library comes as machine code: it runs in a process without our environment.
    """
    asked = json.dumps({"chart": str(CHART), "values": above})
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tools()), "HOME": str(tools())}
    done = subprocess.run([sys.executable, "-c", _RENDER], input=asked, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def kustomized(folder: Path) -> list[Manifest]:
    """What `kubectl kustomize` makes of a folder; skips the test where there is no kubectl of this decade."""
    return documents(_kustomized(folder))


@cache
def _kustomized(folder: Path) -> str:
    kubectl = shutil.which("kubectl")
    if not kubectl:
        pytest.skip("kubectl is not installed: the package kubernetes-client of Debian 13 or later has it")
    version = subprocess.run([kubectl, "version", "--client"], capture_output=True, text=True).stdout
    if "Kustomize Version: v" not in version:
        pytest.skip("kubectl is older than 1.27: its kustomize knows no components")
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "kustomize warns"
    return done.stdout


_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def unconfined(pod: Manifest) -> list[str]:
    """What of a pod the level "restricted" of the Pod Security Standards would refuse, and what we ask beyond: a read-only root file
    system, a user above those of hosts, no token of the Kubernetes API."""
    own = pod.get("securityContext", {})
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    found += [f"volume {one['name']}" for one in pod.get("volumes", []) if not _VOLUMES & one.keys()]
    found += [] if own.get("runAsNonRoot") is True else ["runAsNonRoot"]
    found += [] if own.get("runAsUser", 0) >= 10_000 else ["runAsUser"]
    found += [] if own.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost") else ["seccompProfile"]
    found += [] if pod.get("automountServiceAccountToken") is False else ["automountServiceAccountToken"]
    for one in containers(pod):
        its = one.get("securityContext", {})
        wanted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        found += [f"{one['name']}: {key}" for key, value in wanted.items() if its.get(key) != value]
        found += [f"{one['name']}: {key}" for key in its.keys() - wanted.keys()]
        found += [f"{one['name']}: hostPort" for port in one.get("ports", []) if "hostPort" in port]
        found += [] if one.get("resources", {}).get("limits", {}).get("memory") else [f"{one['name']}: no limit of memory"]
    return found


def open_ways(manifests: Sequence[Manifest]) -> list[str]:
    """Pods that no policy closes, and rules of policies without a peer: those would let everybody."""
    policies = [one["spec"] for one in manifests if one["kind"] == "NetworkPolicy"]
    found = []
    for name, template in templates(manifests).items():
        labels = template["metadata"]["labels"].items()
        closing = [its for its in policies if its["podSelector"].get("matchLabels", {}).items() <= labels]
        found += [] if any(set(its["policyTypes"]) == {"Ingress", "Egress"} for its in closing) else [name]
    for its in policies:
        found += [f"ingress {rule}" for rule in its.get("ingress") or [] if not rule.get("from") or not rule.get("ports")]
        found += [f"egress {rule}" for rule in its.get("egress") or [] if not rule.get("to") or not rule.get("ports")]
    return found


def dangling(manifests: Sequence[Manifest]) -> list[str]:
    """Names and labels that nothing here answers to, Secrets apart: those are not ours."""
    have = named(manifests)
    found = []
    for name, pod in pods(manifests).items():
        asked = {f"ServiceAccount/{pod['serviceAccountName']}"}
        asked |= {f"ConfigMap/{each['configMapRef']['name']}" for one in containers(pod) for each in one.get("envFrom", [])}
        asked |= {
            f"PersistentVolumeClaim/{one['persistentVolumeClaim']['claimName']}"
            for one in pod.get("volumes", [])
            if "persistentVolumeClaim" in one
        }
        found += [f"{name}: {one}" for one in sorted(asked - have.keys())]
        volumes = {one["name"] for one in pod.get("volumes", [])} | {
            one["metadata"]["name"] for one in have.get(name, {}).get("spec", {}).get("volumeClaimTemplates", [])
        }
        found += [
            f"{name}: volume {each['name']}"
            for one in containers(pod)
            for each in one.get("volumeMounts", [])
            if each["name"] not in volumes
        ]
        if "subdomain" in pod and f"Service/{pod['subdomain']}" not in have:
            found.append(f"{name}: subdomain {pod['subdomain']}")
    labels = [template["metadata"]["labels"].items() for template in templates(manifests).values()]
    for name, one in have.items():
        if one["kind"] in ("Service", "PodDisruptionBudget"):
            wanted = one["spec"]["selector"].get("matchLabels", one["spec"]["selector"])
            found += [] if any(wanted.items() <= its for its in labels) else [f"{name}: selects nothing"]
        if one["kind"] == "HorizontalPodAutoscaler":
            target = one["spec"]["scaleTargetRef"]
            found += [] if f"{target['kind']}/{target['name']}" in have else [f"{name}: scales nothing"]
            found += [f"{name}: its target has replicas of its own"] if "replicas" in have[f"Deployment/{target['name']}"]["spec"] else []
        if one["kind"] == "Ingress":
            served = {path["backend"]["service"]["name"] for rule in one["spec"]["rules"] for path in rule["http"]["paths"]}
            found += [f"{name}: {each}" for each in served if f"Service/{each}" not in have]
    return found
