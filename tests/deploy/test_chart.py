"""The chart rendered by Helm itself and held against the API of two versions of Kubernetes, checkov, and the kustomize base."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from charts import (
    BASE,
    CASES,
    REPO,
    Manifest,
    containers,
    dangling,
    documents,
    helm,
    kustomized,
    named,
    open_ways,
    pods,
    templates,
    tools,
    unconfined,
    values,
    yaml,
)
from finsight.cli.models import score

pytestmark = pytest.mark.long
KUBERNETES = ("1.27", "1.37")  # the oldest that Chart.yaml admits, and the newest that the schemas are of
SEVERAL = ("1.31", "1.37")  # the oldest for a training on several machines
OPERATORS = {"ExternalSecret", "PodMonitor", "ServiceMonitor"}  # kinds that Kubernetes itself has not
# What checkov says of the chart and we don't follow.
ACCEPTED = {
    "CKV_K8S_11": "a limit of processor time only slows down: requests share it; memory has limits",
    "CKV_K8S_15": "a tag is of one version and never moved, a digest can't be; so a node need not ask the registry again",
    "CKV_K8S_35": "settings are read from the environment; /proc/PID/environ is its own user's alone, and jobs get none of the service's",
    "CKV_K8S_43": "a digest is of an image in a registry of yours: images.*.digest",
}


@pytest.fixture(scope="session")
def cases() -> dict[str, dict[str, Any]]:
    return {case: helm(yaml(path) if path else {}) for case, path in CASES.items()}


def manifests(made: dict[str, Any]) -> list[Manifest]:
    assert not made["refused"], made["refused"]
    return [one for name, text in made["files"].items() if name.endswith(".yaml") for one in documents(text)]


@pytest.mark.parametrize("case", CASES)
def test_helm_lints_it_strictly(cases: dict[str, dict[str, Any]], case: str) -> None:
    lint = cases[case]["lint"]
    assert lint["errors"] == []
    assert [one["error"] for one in lint["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize("case", CASES)
def test_kubernetes_takes_every_manifest(cases: dict[str, dict[str, Any]], case: str, tmp_path: Path) -> None:
    made = manifests(cases[case])
    unknown = {"everything": OPERATORS, "machines": {"RayJob"}}.get(case, set())
    said = validated(tmp_path, made, SEVERAL if case == "machines" else KUBERNETES)
    assert set(said) == {"ok"} | {f"no schema: {kind}" for kind in unknown}
    assert {one["kind"] for one in made} >= {"Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget", "ConfigMap", "ServiceAccount"}


@pytest.mark.parametrize("name", ["base", "overlays/example"])
def test_kubernetes_takes_what_kustomize_makes(name: str, tmp_path: Path) -> None:
    assert set(validated(tmp_path, kustomized(BASE.parent / name))) == {"ok"}


def test_a_field_that_kubernetes_does_not_know_is_found(cases: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    made = manifests(cases["defaults"])
    named(made)["Deployment/finsight-api"]["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    assert any("livenesProbe" in line for line in validated(tmp_path, made))


_VALIDATE = """
import json, sys
import kubernetes_validate as kubernetes
for version in sys.argv[1:]:
    for one in json.load(open("manifests.json")):
        try:
            kubernetes.validate(one, version, strict=True)
            print("ok")
        except kubernetes.SchemaNotFoundError:
            print("no schema:", one["kind"])
        except kubernetes.ValidationError as error:
            print(version, one["kind"], one["metadata"]["name"], error.message[:200])
"""


def validated(work: Path, made: list[Manifest], versions: Sequence[str] = KUBERNETES) -> list[str]:
    """What is said of each manifest, a line each and version."""
    (work / "manifests.json").write_text(json.dumps(made))
    command = [sys.executable, "-c", _VALIDATE, *versions]
    done = subprocess.run(command, cwd=work, env={"PYTHONPATH": str(tools())}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(made) * len(versions)
    return lines


_OPERATORS = """
import { readFileSync } from "node:fs";
import { PodMonitor, ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
import { ExternalSecret } from "@kubernetes-models/external-secrets/external-secrets.io/v1";
const kinds = { PodMonitor, ServiceMonitor, ExternalSecret };
for (const one of JSON.parse(readFileSync(0))) {
  try { new kinds[one.kind](one).validate(); console.log("ok"); } catch (error) { console.log(error.message); }
}
"""


def test_the_operators_take_theirs(cases: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """Their kinds, by the schemas of their own definitions."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")
    packages = ["@kubernetes-models/prometheus-operator@6.0.0", "@kubernetes-models/external-secrets@2.0.0"]
    done = subprocess.run(
        ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", *packages], cwd=tmp_path, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"npm can't install them: {done.stderr[-200:]}")
    (tmp_path / "check.mjs").write_text(_OPERATORS)
    theirs = [one for one in manifests(cases["everything"]) if one["kind"] in OPERATORS]
    assert {one["kind"] for one in theirs} == OPERATORS
    wrong = deepcopy(theirs)
    for one in wrong:
        one["spec"][{"ServiceMonitor": "endpoints", "PodMonitor": "selector", "ExternalSecret": "secretStoreRef"}[one["kind"]]] = 3
    asked = json.dumps([*theirs, *wrong])
    said = subprocess.run(["node", "check.mjs"], cwd=tmp_path, input=asked, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[: len(theirs)] == ["ok"] * len(theirs)
    assert all("must be" in one for one in said[len(theirs) :])


@pytest.mark.parametrize("case", CASES)
def test_all_of_it_fits_together_and_is_closed(cases: dict[str, dict[str, Any]], case: str) -> None:
    made = manifests(cases[case])
    assert dangling(made) == []
    assert open_ways(made) == []
    assert [(name, fault) for name, pod in pods(made).items() for fault in unconfined(pod)] == []


def test_each_case_has_what_it_is_of(cases: dict[str, dict[str, Any]]) -> None:
    everything, external = named(manifests(cases["everything"])), named(manifests(cases["external"]))
    assert everything.keys() >= {
        "Ingress/finsight-api", "CronJob/finsight-training", "ServiceMonitor/finsight-api", "HorizontalPodAutoscaler/finsight-api",
        "ExternalSecret/finsight", "StatefulSet/finsight-redis", "StatefulSet/finsight-mlflow", "PersistentVolumeClaim/finsight-training",
    }  # fmt: skip
    worker = everything["Deployment/finsight-worker"]
    assert worker["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert worker["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    job = everything["CronJob/finsight-training"]["spec"]["jobTemplate"]
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert job["spec"]["template"]["spec"]["containers"][0]["args"][0].splitlines()[-1] == "dvc repro && dvc push"
    assert not [name for name in external if name.startswith(("StatefulSet", "HorizontalPodAutoscaler", "CronJob"))]
    assert external["Job/finsight-training-1"]
    assert external["ConfigMap/finsight-settings"]["data"]["MLFLOW_TRACKING_URI"] == "https://mlflow.desk.test"
    assert external["Deployment/finsight-api"]["spec"]["replicas"] == 3
    ports = {rule["ports"][0]["port"] for rule in external["NetworkPolicy/finsight-api"]["spec"]["egress"]}
    assert ports == {53, 6380, 443}
    assert external["Ingress/finsight-api"]["metadata"]["annotations"]["nginx.ingress.kubernetes.io/enable-owasp-core-rules"] == "true"


def test_secrets_may_come_as_files(cases: dict[str, dict[str, Any]]) -> None:
    """Each of those that are named stands in no variable, and in the files of those alone that need it."""
    made = pods(manifests(cases["everything"]))
    found = {}
    for owner in ("Deployment/finsight-api", "Deployment/finsight-worker"):
        (one,) = made[owner]["containers"]
        (volume,) = [each["secret"] for each in made[owner]["volumes"] if each["name"] == "secrets"]
        assert {"name": "secrets", "mountPath": "/secrets", "readOnly": True} in one["volumeMounts"]
        assert (volume["secretName"], volume["defaultMode"]) == ("finsight", 0o440)
        found[owner] = {each["path"] for each in volume["items"]}
        variables = {each["name"]: each.get("value") for each in one["env"]}
        named_files = {name: at for name, at in variables.items() if str(at).startswith("/secrets/")}
        assert named_files == {f"{name}_FILE": f"/secrets/{name}" for name in found[owner]}
        assert not found[owner] & variables.keys()
    assert found["Deployment/finsight-api"] == set(values("everything")["secrets"]["files"])
    assert found["Deployment/finsight-worker"] == found["Deployment/finsight-api"] - {"FINSIGHT_API_KEY"}


@pytest.mark.parametrize("case", ["everything", "machines"])
def test_authorities_count_wherever_something_is_asked_by_tls(cases: dict[str, dict[str, Any]], case: str) -> None:
    made = pods(manifests(cases[case]))
    for owner, pod in made.items():
        for one in containers(pod):
            trusted = {each["name"] for each in one["env"] if each.get("value") == "/authorities/ca.crt"}
            mounted = any(each["mountPath"] == "/authorities" for each in one["volumeMounts"])
            asks = owner != "StatefulSet/finsight-redis"
            assert (len(trusted), mounted) == ((5, True) if asks else (0, False)), f"{owner}: {one['name']}"
    assert "authorities" not in str(manifests(cases["defaults"]))


def test_whoever_fetches_from_s3_signs_for_its_region(cases: dict[str, dict[str, Any]]) -> None:
    """A bucket elsewhere than us-east-1 refuses what is signed for that."""
    made = manifests(cases["everything"])
    regions = {}
    for owner, pod in pods(made).items():
        for one in containers(pod):
            given = {each["name"]: each.get("value") for each in one.get("env", [])}
            for each in one.get("envFrom", []):
                given |= named(made)[f"ConfigMap/{each['configMapRef']['name']}"]["data"]
            if "AWS_ACCESS_KEY_ID" in given:
                regions[owner, one["name"]] = given.get("AWS_DEFAULT_REGION")
    assert len(regions) == 6
    assert set(regions.values()) == {"eu-central-1"}


def test_a_command_may_have_several_lines(cases: dict[str, dict[str, Any]]) -> None:
    commands = {"command": "dvc repro\ndvc push\n", "joinCommand": "dvc repro prepare\nfinsight join\n"}
    for nodes in (1, 2):
        made = named(manifests(helm({"training": {"enabled": True, "nodes": nodes, **commands}})))
        (script,) = made["Job/finsight-training-1"]["spec"]["template"]["spec"]["containers"][0]["args"]
        assert {"dvc repro", "dvc push"} <= {line.strip() for line in script.splitlines()}
        assert subprocess.run(["sh", "-n"], input=script, text=True, capture_output=True).stderr == ""


def test_no_image_of_ours_comes_from_a_registry_that_is_a_strangers(cases: dict[str, dict[str, Any]]) -> None:
    """An image without a registry is Docker Hub's, where anybody may take a name; those of the defaults nobody can have."""
    for made in cases.values():
        images = {one["image"] for pod in pods(manifests(made)).values() for one in containers(pod)}
        hosts = {image.split("/")[0] for image in images}
        assert hosts <= {"registry.example", "registry.desk.test", "docker.io"}
        assert {image for image in images if image.startswith("docker.io/")} <= {"docker.io/library/redis:8.2.3-alpine"}


def test_a_training_on_several_machines_is_an_indexed_job(cases: dict[str, dict[str, Any]]) -> None:
    """Its pods find the first by name, reach each other and nobody else reaches them, and keep what is theirs in one volume."""
    machines = named(manifests(cases["machines"]))
    job = machines["Job/finsight-training-1"]
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert (job["spec"]["completionMode"], job["spec"]["completions"], job["spec"]["parallelism"]) == ("Indexed", 2, 2)
    pod = job["spec"]["template"]["spec"]
    service = machines[f"Service/{pod['subdomain']}"]["spec"]
    (training,) = pod["containers"]
    said = re.findall(r'FINSIGHT_LAUNCH="(.*)"', training["args"][0])
    (port,) = [each["port"] for each in service["ports"]]
    assert said == [f"processes=4,nodes=2,node_rank=$JOB_COMPLETION_INDEX,rendezvous=$JOB_NAME-0.{pod['subdomain']}:{port}"]
    assert training["resources"]["limits"]["nvidia.com/gpu"] == 4
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert (service["clusterIP"], service["selector"].items() <= labels.items()) == ("None", True)
    policy = machines["NetworkPolicy/finsight-training"]["spec"]
    among = [{"podSelector": policy["podSelector"]}]
    assert [rule["from"] for rule in policy["ingress"]] == [among]
    assert among in [rule["to"] for rule in policy["egress"]]
    assert machines["PersistentVolumeClaim/finsight-training"]["spec"]["accessModes"] == ["ReadWriteMany"]
    work = [each for one in containers(pod) for each in one["volumeMounts"] if each["name"] == "work"]
    assert len(work) == 3
    assert all("$(JOB_COMPLETION_INDEX)" in each["subPathExpr"] for each in work)


def test_one_machine_with_several_gpus_uses_all(cases: dict[str, dict[str, Any]]) -> None:
    made = named(manifests(helm({"training": {"enabled": True, "gpu": {"count": 4}}})))
    (training,) = made["Job/finsight-training-1"]["spec"]["template"]["spec"]["containers"]
    assert {"name": "FINSIGHT_LAUNCH", "value": "processes=4"} in training["env"]
    (alone,) = named(manifests(cases["external"]))["Job/finsight-training-1"]["spec"]["template"]["spec"]["containers"]
    assert "FINSIGHT_LAUNCH" not in str(alone)


# Of KubeRay's RayJobSpec, RayClusterSpec, HeadGroupSpec and WorkerGroupSpec (ray.io/v1, KubeRay 1.4), those that the chart sets. Its
# definition is in no package index: the pods in it are held against Kubernetes' own.
_RAY = {
    "spec": {
        "activeDeadlineSeconds", "backoffLimit", "entrypoint", "rayClusterSpec", "shutdownAfterJobFinishes", "submissionMode",
        "ttlSecondsAfterFinished",
    },
    "cluster": {"headGroupSpec", "workerGroupSpecs"},
    "head": {"rayStartParams", "template"},
    "workers": {"groupName", "maxReplicas", "minReplicas", "rayStartParams", "replicas", "template"},
}  # fmt: skip


def test_a_scoring_is_a_ray_job(cases: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    job = named(manifests(cases["machines"]))["RayJob/finsight-scoring-1"]
    assert (job["apiVersion"], job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]) == ("ray.io/v1", "research")
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    found = {"spec": set(spec), "cluster": set(cluster), "head": set(cluster["headGroupSpec"]), "workers": set(workers)}
    assert found == _RAY
    program, command, *words = shlex.split(spec["entrypoint"])
    asked = score.make_context(command, words)  # as the real command takes it
    assert (program, command) == ("finsight", "score")
    given = {"source": "s3://desk/headlines", "target": "s3://desk/scores", "engine": "ray", "address": "auto", "text": "headline"}
    assert given.items() <= asked.params.items()
    assert str(asked.params["bundle"]) == "models:/finsight@champion"
    assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"] == 4
    (one,) = workers["template"]["spec"]["containers"]
    assert one["resources"]["limits"]["nvidia.com/gpu"] == 1
    made = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name.rpartition("/")[2], **its["metadata"]}, "spec": its["spec"]}
        for name, its in templates([job]).items()
    ]
    assert [one["metadata"]["name"] for one in made] == ["head", "workers"]
    assert set(validated(tmp_path, made)) == {"ok"}


def test_prometheus_reaches_the_workers_and_nobody_else_does(cases: dict[str, dict[str, Any]]) -> None:
    everything = named(manifests(cases["everything"]))
    (worker,) = everything["Deployment/finsight-worker"]["spec"]["template"]["spec"]["containers"]
    (port,) = worker["ports"]
    assert {"name": "FINSIGHT_WORKER_METRICS", "value": f"0.0.0.0:{port['containerPort']}"} in worker["env"]
    (asking,) = everything["NetworkPolicy/finsight-worker"]["spec"]["ingress"]
    assert asking["ports"] == [{"port": port["containerPort"], "protocol": "TCP"}]
    assert asking["from"] == values("everything")["networkPolicy"]["metricsFrom"]
    asked = everything["PodMonitor/finsight-worker"]["spec"]
    assert asked["selector"] == everything["Deployment/finsight-worker"]["spec"]["selector"]
    assert [one["port"] for one in asked["podMetricsEndpoints"]] == [port["name"]]
    jobs = {
        each["replacement"]
        for kind in ("PodMonitor/finsight-worker", "ServiceMonitor/finsight-api")
        for each in _relabelled(everything[kind])
    }
    rules = "".join(path.read_text() for path in (REPO / "deploy/prometheus/rules").glob("*.yml"))
    assert jobs == set(re.findall(r'job="([\w-]+)"', rules))


def _relabelled(monitor: Manifest) -> list[dict[str, str]]:
    spec = monitor["spec"]
    return [
        each
        for one in spec.get("endpoints", spec.get("podMetricsEndpoints"))
        for each in one["relabelings"]
        if each["targetLabel"] == "job"
    ]


def test_no_secret_is_in_a_manifest(cases: dict[str, dict[str, Any]]) -> None:
    for made in cases.values():
        assert not [one for one in manifests(made) if one["kind"] == "Secret"]
        secret = re.compile(r"KEY|SECRET|PASSWORD|TOKEN|REDIS_URL")
        variables = [each for pod in pods(manifests(made)).values() for one in containers(pod) for each in one.get("env", [])]
        assert not [
            each["name"]
            for each in variables
            if secret.search(each["name"]) and "value" in each and not re.search("^GIT_CONFIG|_FILE$", each["name"])
        ]


@pytest.mark.parametrize(
    ("above", "said"),
    [
        ({"worker": {"gpus": 1}}, "gpus"),
        ({"settings": {"FINSIGHT_DRAIN_SECOND": "10"}}, "FINSIGHT_DRAIN_SECOND"),
        ({"mlflow": {"enabled": False}}, "url"),
    ],
)
def test_helm_refuses_what_the_schema_does(above: dict[str, Any], said: str) -> None:
    made = helm(above)
    assert said in made["refused"]
    assert any(said in one for one in made["lint"]["errors"])


def test_notes_say_what_is_not_set(cases: dict[str, dict[str, Any]]) -> None:
    notes = {case: made["files"]["finsight/templates/NOTES.txt"] for case, made in cases.items()}
    assert "NOT SET: repository.url" in notes["defaults"]
    unset = {case: re.findall(r"NOT SET: images\.(\w+)\.repository", text) for case, text in notes.items()}
    assert unset["defaults"] == ["serving", "trainer", "mlflow"]
    assert unset["machines"] == ["serving", "trainer", "ray", "mlflow"]
    assert "CLOSED: nothing may go to s3" in notes["defaults"]
    assert not re.search("NOT SET|CLOSED|SHARED", notes["everything"])
    assert "SHARED: without settings.FINSIGHT_TRUSTED_PROXIES" in notes["external"]


def test_the_kustomize_base_is_what_the_defaults_make(cases: dict[str, dict[str, Any]]) -> None:
    assert bare(kustomized(BASE)) == bare(manifests(cases["defaults"]))


def test_the_components_are_what_the_chart_makes(tmp_path: Path) -> None:
    over = {"namespace": "finsight", "resources": ["base"], "components": ["components/training", "components/ingress"]}
    shutil.copytree(BASE.parent, tmp_path / "kustomize")
    with (tmp_path / "kustomize/kustomization.yaml").open("w") as file:
        YAML().dump(over, file)
    made = helm({"training": {"enabled": True, "schedule": "0 3 * * 1"}, "ingress": {"enabled": True}})
    assert bare(kustomized(tmp_path / "kustomize")) == bare(manifests(made))


def bare(made: list[Manifest]) -> dict[str, Any]:
    """Manifests without what only Helm, or only kustomize, says: labels of the chart, a digest of the settings."""
    text = re.sub(r"finsight-settings-[0-9a-z]{10}", "finsight-settings", json.dumps(made))
    found = named(json.loads(text))
    for one in found.values():
        template = one.get("spec", {}).get("template", {})
        for metadata in (one["metadata"], template.get("metadata", {}), one.get("spec", {}).get("jobTemplate", {}).get("metadata", {})):
            for label in ("app.kubernetes.io/version", "app.kubernetes.io/part-of", "app.kubernetes.io/managed-by", "helm.sh/chart"):
                metadata.get("labels", {}).pop(label, None)
            metadata.get("annotations", {}).pop("checksum/settings", None)
            if metadata.get("annotations") == {}:
                del metadata["annotations"]
    return found


@pytest.mark.timeout(1200)
def test_checkov_finds_nothing_that_is_not_accepted(cases: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """In an environment of its own: its pins are not ours."""
    made = tmp_path / "made"
    made.mkdir()
    for case in CASES:
        (made / f"{case}.yaml").write_text("\n---\n".join(json.dumps(one) for one in manifests(cases[case])))
    (made / "example.yaml").write_text("\n---\n".join(json.dumps(one) for one in kustomized(BASE.parent / "overlays/example")))
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "checkov"], check=True)
    pip = [tmp_path / "checkov/bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "checkov==3.3.30"]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"checkov can't be installed here: {done.stderr[-200:]}")
    command = [tmp_path / "checkov/bin/checkov", "-d", made, "--framework", "kubernetes", "--skip-download", "--quiet", "-o", "json"]
    said = subprocess.run(command, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)})
    report = json.loads(said.stdout)
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] + report["summary"]["failed"] > 500
    failed = {one["check_id"] for one in report["results"]["failed_checks"]}
    assert failed == ACCEPTED.keys(), [(one["check_id"], one["check_name"], one["resource"]) for one in report["results"]["failed_checks"]]
