"""What the chart can be told, without Helm: the schema of its values, and the names that it shares with the package."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from ruamel.yaml import YAML

from apps import app_with
from charts import CASES, CHART, REPO, merged, values, yaml
from finsight import __version__
from finsight.service.access import actions
from finsight.service.meters import Meters
from finsight.settings import Settings

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
# Settings that a pod is not told by `settings`, beside those that are secret.
ELSEWHERE = {
    "FINSIGHT_CACHE": "the chart's own volume",
    "MLFLOW_TRACKING_URI": "mlflow.url, or the chart's own MLflow",
    "AWS_ENDPOINT_URL": "s3.endpoint",
    "FINSIGHT_SERVICE_METRICS": "the service is asked at its own port, with a credential; its NetworkPolicy closes every other",
    "FINSIGHT_WORKER_METRICS": "the chart's own, since NetworkPolicy and PodMonitor name the port",
    "FINSIGHT_LAUNCH": "the chart's own, of training.nodes and training.gpu",
    "FINSIGHT_METRICS_DIR": "no node_exporter looks into a pod; FINSIGHT_PUSHGATEWAY is for those that end",
}
# Variables that others read: git, DVC, MLflow, boto3, the C library.
OTHERS = {
    "HOME", "USER", "GIT_TERMINAL_PROMPT", "GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_0", "GIT_CONFIG_VALUE_0", "DVC_SITE_CACHE_DIR",
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "AWS_CA_BUNDLE", "GIT_SSL_CAINFO", "MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
}  # fmt: skip


def read_by_finsight() -> set[str]:
    """Every environment variable that the package reads: its settings, and what is read before them."""
    settings = {str(field.validation_alias or f"FINSIGHT_{name.upper()}") for name, field in Settings.model_fields.items()}
    early = re.findall(r'environ(?:\.get\(|\[)"(FINSIGHT_\w+)"', (REPO / "src/finsight/environment.py").read_text())
    return settings | set(early)


def secret_settings() -> set[str]:
    return {f"FINSIGHT_{name.upper()}" for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}


def wrong(found: Any) -> list[str]:
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in Draft7Validator(SCHEMA).iter_errors(found)]


def test_the_schema_is_one() -> None:
    Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("case", CASES)
def test_examples_fit_the_schema(case: str) -> None:
    assert wrong(values(case)) == []


def test_the_page_shows_values_that_fit() -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", (REPO / "docs/kubernetes.md").read_text(), re.S)
    assert wrong(merged(values("defaults"), YAML(typ="safe").load(shown))) == []


def objects(node: Any, path: tuple[str, ...] = ()) -> Any:
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield path, node
        for key, below in node.items():
            yield from objects(below, (*path, key))
    elif isinstance(node, list):
        for i, below in enumerate(node):
            yield from objects(below, (*path, str(i)))


def test_every_map_says_what_may_be_in_it() -> None:
    """Maps that are Kubernetes' own are the exception, and named here."""
    kubernetes = {"affinity", "global", "namespaceSelector", "podSelector", "valueFrom"}
    open_ones = {path[-1] for path, node in objects(SCHEMA) if node.get("additionalProperties", True) is True}
    assert open_ones <= kubernetes | {"items"}, "tolerations are items"


def test_every_value_is_in_the_schema() -> None:
    """And no key of the schema is without its line in values.yaml, but where the schema has alternatives."""

    def keys(node: Any, path: str = "") -> set[str]:
        if "$ref" in node:
            node = SCHEMA["definitions"][node["$ref"].rpartition("/")[2]]
        return {f"{path}{key}" for key in node.get("properties", {})} | {
            one for key, below in node.get("properties", {}).items() for one in keys(below, f"{path}{key}.")
        }

    def given(node: Any, path: str = "") -> set[str]:
        if not isinstance(node, dict):
            return set()
        return {f"{path}{key}" for key in node} | {one for key, below in node.items() for one in given(below, f"{path}{key}.")}

    told = given(yaml(CHART / "values.yaml"))
    unsaid = {one for one in keys(SCHEMA) - told if not one.startswith("settings.")}
    assert unsaid == {"global", "api.disruptionBudget.minAvailable", "api.autoscaling.behavior.scaleDown.selectPolicy"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"training": {"nodes": 0}}, "training.nodes"),
        ({"scoring": {"input": "s3://a/b; rm -r /"}}, "scoring.input"),
        ({"worker": {"gpus": 1}}, "gpus"),
        ({"replicaCount": 3}, "replicaCount"),
        ({"settings": {"FINSIGHT_DRAIN_SECOND": "10"}}, "FINSIGHT_DRAIN_SECOND"),
        ({"settings": {"FINSIGHT_API_KEY": "a secret in the release's history"}}, "FINSIGHT_API_KEY"),
        ({"settings": {"FINSIGHT_DRAIN_SECONDS": 10}}, "10 is not of type 'string'"),
        ({"repository": {"url": "https://me:password@git.example/finsight.git"}}, "repository.url"),
        ({"mlflow": {"enabled": False}}, "mlflow.url"),
        ({"mlflow": {"url": "https://me:password@mlflow.example"}}, "mlflow.url"),
        ({"ingress": {"firewall": True}}, "ingress.controller"),
        ({"images": {"serving": {"digest": "sha256:abc"}}}, "images.serving.digest"),
        ({"api": {"autoscaling": {"textsWaiting": "many"}}}, "textsWaiting"),
        ({"api": {"probes": {"startSeconds": 5}}}, "api.probes.startSeconds"),
        ({"settings": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:password@collector:4318"}}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"settings": {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=a secret"}}, "OTEL_EXPORTER_OTLP_HEADERS"),
        ({"networkPolicy": {"egress": {"everything": {"to": []}}}}, "everything"),
        ({"networkPolicy": {"egress": {"s3": {"to": [{}]}}}}, "networkPolicy.egress.s3.to.0"),
        ({"api": {"disruptionBudget": {"maxUnavailable": 1, "minAvailable": 1}}}, "disruptionBudget"),
    ],
)
def test_what_is_wrong_is_refused(change: dict[str, Any], said: str) -> None:
    assert any(said in line for line in wrong(merged(values("defaults"), change)))


def test_settings_are_variables_that_finsight_reads() -> None:
    from opentelemetry.sdk import environment_variables

    assert set(SCHEMA["properties"]["settings"]["properties"]) <= read_by_finsight() | set(vars(environment_variables))


def test_every_setting_can_be_told() -> None:
    """By `settings`, by the Secret, or by what ELSEWHERE names."""
    told = {name for name in SCHEMA["properties"]["settings"]["properties"] if not name.startswith("OTEL_")}
    assert told == read_by_finsight() - secret_settings() - ELSEWHERE.keys()


def test_variables_of_the_templates_are_read() -> None:
    """By finsight, or by what it is made of."""
    text = "".join(path.read_text() for path in (CHART / "templates").glob("*"))
    own, shown = set(re.findall(r"FINSIGHT_[A-Z0-9_]+", text)), set(re.findall(r"name: ([A-Z][A-Z0-9_]+)", text))
    assert own <= read_by_finsight()
    assert {"FINSIGHT_CACHE", "FINSIGHT_API_KEY", "FINSIGHT_REDIS_URL"} <= own
    scripts = {"REPOSITORY", "REVISION", "DVC_REMOTE", "DVC_ENDPOINT", "JOB_NAME"}
    assert shown - own - OTHERS == scripts, "of the scripts that clone and train"


def test_secrets_are_the_settings_that_are_secret() -> None:
    """None of them can be given as a value; each comes from the Secret, to those alone that need it."""
    secret = secret_settings()
    assert not secret & set(SCHEMA["properties"]["settings"]["properties"])
    assert secret == set(SCHEMA["properties"]["secrets"]["properties"]["files"]["items"]["enum"])
    templates = {name: (CHART / f"templates/{name}.yaml").read_text() for name in ("api", "worker", "training")}
    assert secret == {name for name in secret if any(name in text for text in templates.values())}
    assert not {"FINSIGHT_API_KEY", "FINSIGHT_OIDC_CLIENT_SECRET"} & set(
        re.findall(r"FINSIGHT_[A-Z_]+", templates["worker"] + templates["training"])
    )
    assert "FINSIGHT_SIGNING_KEY" not in templates["api"]


def test_the_chart_is_of_this_version() -> None:
    assert yaml(CHART / "Chart.yaml")["appVersion"] == __version__


def test_metrics_that_scale_the_service_are_its_own() -> None:
    own = {sample.name for family in Meters().registry.collect() for sample in family.samples} | {
        f"{family.name}{suffix}"
        for family in Meters().registry.collect()
        if family.type == "histogram"
        for suffix in ("_bucket", "_count", "_sum")
    }
    rules = yaml(REPO / "deploy/helm/prometheus-adapter.yaml")["rules"]["custom"]
    series = [re.match(r"\w+", rule["seriesQuery"])[0] for rule in rules]  # type: ignore[index]
    assert set(series) <= own
    shown = {rule.get("name", {}).get("as", name) for rule, name in zip(rules, series, strict=True)}
    asked = re.findall(r"metric: \{name: (\w+)\}", (CHART / "templates/autoscaler.yaml").read_text())
    assert set(asked) == shown


def test_the_ingress_lets_through_what_is_for_people_and_programs() -> None:
    """Every route of the service is let through, or is one of those for whoever keeps it running."""
    exact, prefixes = re.findall(r"range list ((?:\"[\w/.]*\" ?)+)", (CHART / "templates/ingress.yaml").read_text())
    exact, prefixes = re.findall(r'"([^"]*)"', exact), re.findall(r'"([^"]*)"', prefixes)
    routes = {path for _, path in actions(app_with())}
    below = [one.rstrip("/") for one in prefixes]
    closed = {path for path in routes if path not in exact and not any(path == one or path.startswith(f"{one}/") for one in below)}
    assert closed <= {"/metrics", "/livez", "/readyz", "/startupz", "/healthz"}
    assert "/metrics" in closed
    # NGINX Ingress Controller makes locations of them, which begin in the middle of a word: /live would let /livez through.
    assert not [path for path in closed if any(path.startswith(one) for one in prefixes)]
    assert all(any(path == one or path.startswith(f"{one}/") for path in routes) for one in (*exact, *below)), "a path that is no route's"


def test_the_adapters_queries_give_what_scales_the_service(tmp_path: Path) -> None:
    """As Prometheus reckons them, for a pod that is asked and one that nobody asks."""
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("promtool is not installed: Debian's package prometheus has it")
    names = ("finsight_texts_waiting", "finsight_request_seconds_p95")
    rules = yaml(REPO / "deploy/helm/prometheus-adapter.yaml")["rules"]["custom"]
    recorded = []
    for name, rule in zip(names, rules, strict=True):
        series = re.match(r"\w+", rule["seriesQuery"])[0]  # type: ignore[index]
        query = rule["metricsQuery"].replace("<<.GroupBy>>", "pod").replace("<<.Series>>", series)
        recorded.append({"record": f"scaled:{name}", "expr": query.replace("<<.LabelMatchers>>", 'namespace="finsight",pod=~"asked|idle"')})
    (tmp_path / "rules.yaml").write_text(json.dumps({"groups": [{"name": "adapter", "rules": recorded}]}))
    labels = 'namespace="finsight",route="/v1/predict",method="POST"'
    # Of 100 requests each 30 s, 90 take up to 0.1 s and 10 up to 0.5: the 95th is in the middle of those.
    counts = {
        ("asked", "0.1"): "0+90x10",
        ("asked", "0.5"): "0+100x10",
        ("asked", "+Inf"): "0+100x10",
        ("idle", "0.1"): "7x10",
        ("idle", "+Inf"): "7x10",
    }
    inputs = [
        {"series": f'finsight_request_seconds_bucket{{{labels},pod="{pod}",le="{le}"}}', "values": values}
        for (pod, le), values in counts.items()
    ]
    inputs += [{"series": 'finsight_texts_waiting{namespace="finsight",pod="asked"}', "values": "0 0 0 0 0 0 0 0 0 300 0"}]
    inputs += [
        {"series": 'finsight_request_seconds_bucket{namespace="other",route="/v1/predict",pod="asked",le="+Inf"}', "values": "0+9x10"}
    ]
    expected = {names[0]: {"asked": 300}, names[1]: {"asked": 0.3, "idle": 0}}
    asked = [
        {
            "expr": f"round(scaled:{name}, 0.001)",
            "eval_time": "5m",
            "exp_samples": [{"labels": f'{{pod="{pod}"}}', "value": value} for pod, value in found.items()],
        }
        for name, found in expected.items()
    ]
    case = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "30s",
        "tests": [{"interval": "30s", "input_series": inputs, "promql_expr_test": asked}],
    }
    (tmp_path / "test.yaml").write_text(json.dumps(case))
    done = subprocess.run([promtool, "test", "rules", "test.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
