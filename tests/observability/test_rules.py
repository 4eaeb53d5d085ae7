"""What Prometheus, Alertmanager and Grafana are given, by their own checkers; every alert has cases, every metric in use is one of ours."""

import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from conftest import REPO
from monitors import tool

PROMETHEUS = REPO / "deploy/prometheus"
DASHBOARDS = sorted((REPO / "deploy/grafana/dashboards").glob("*.json"))
LISTED = set(re.findall(r"^\| `(finsight_\w+)` \|", (REPO / "docs/observability.md").read_text(), re.MULTILINE))
SUFFIXES = ("_bucket", "_count", "_sum")


@cache
def read(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def rules(kind: str) -> dict[str, dict[str, Any]]:
    """Those of a kind (alert, record) by name."""
    files = sorted((PROMETHEUS / "rules").glob("*.yml"))
    return {rule[kind]: rule for path in files for group in read(path)["groups"] for rule in group["rules"] if kind in rule}


def panels(path: Path) -> list[dict[str, Any]]:
    return [panel for panel in json.loads(path.read_text())["panels"] if panel["type"] != "row"]


def checked(*command: str) -> str:
    done = subprocess.run(command, cwd=PROMETHEUS, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_configurations_and_rules_are_what_their_tools_take() -> None:
    promtool = tool("promtool")
    checked(promtool, "check", "config", "prometheus.yml")
    said = checked(promtool, "check", "rules", "--lint=all", "--lint-fatal", *map(str, sorted((PROMETHEUS / "rules").glob("*.yml"))))
    assert f"{len(rules('alert'))} rules found" in said
    checked(promtool, "test", "rules", *map(str, sorted((PROMETHEUS / "tests").glob("*.yml"))))
    checked(tool("amtool"), "check-config", str(REPO / "deploy/alertmanager/alertmanager.yml"))


def cases(name: str, fires: bool) -> list[dict[str, Any]]:
    """Tests in which an alert is asked for that has to fire, or not to."""
    tests = [test for path in (PROMETHEUS / "tests").glob("*.yml") for test in read(path)["tests"]]
    return [
        test for test in tests for asked in test["alert_rule_test"] if asked["alertname"] == name and bool(asked["exp_alerts"]) is fires
    ]


@pytest.mark.parametrize("name", rules("alert"))
def test_every_alert_has_a_case_that_fires_and_one_that_comes_near(name: str) -> None:
    rule = rules("alert")[name]
    assert cases(name, fires=True)
    (near, *_) = cases(name, fires=False)
    expression = rule["expr"]
    for record, how in rules("record").items():
        expression = expression.replace(record, how["expr"])
    needed = set(re.findall(r"\b(finsight_\w+|up)\b(?!:)", expression))
    given = {re.split(r"[{ ]", series["series"])[0] for series in near["input_series"]}
    assert needed & given, f"{name}: its quiet case has none of {needed}"
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "todo"}


@pytest.mark.parametrize(
    "text",
    [pytest.param(rule["expr"], id=name) for kind in ("alert", "record") for name, rule in rules(kind).items()]
    + [pytest.param(t["expr"], id=f"{path.stem}: {p['title']}") for path in DASHBOARDS for p in panels(path) for t in p["targets"]],
)
def test_expressions_ask_for_metrics_that_there_are(text: str) -> None:
    text = re.sub(r'"[^"]*"', "", text)
    recorded = set(re.findall(r"\b\w+:finsight_\w+:\w+|\bfinsight:\w+:\w+", text))
    assert recorded <= rules("record").keys()
    for name in recorded:
        text = text.replace(name, "")
    for name in re.findall(r"\bfinsight_\w+", text):
        assert name in LISTED or any(name.endswith(s) and name.removesuffix(s) in LISTED for s in SUFFIXES), name


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_has_what_grafana_wants(path: Path) -> None:
    content = json.loads(path.read_text())
    assert content["uid"] == f"finsight-{path.stem}"
    ids = [panel["id"] for panel in content["panels"]]
    assert len(ids) == len(set(ids))
    for panel in panels(path):
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["targets"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
    (variable,) = content["templating"]["list"]
    source = read(REPO / "deploy/grafana/provisioning/datasources/prometheus.yml")["datasources"][0]
    assert (variable["name"], variable["current"]["value"]) == ("datasource", source["uid"])


def test_dashboards_name_alerts_that_there_are() -> None:
    for path in DASHBOARDS:
        assert set(re.findall(r"\bFinsight[A-Z]\w+", path.read_text())) <= rules("alert").keys()


def test_the_alerts_are_in_the_documentation() -> None:
    listed = re.findall(r"^\| `(Finsight\w+)` \| [^|]+ \| (\w+) \|", (REPO / "docs/observability.md").read_text(), re.MULTILINE)
    assert dict(listed) == {name: rule["labels"]["severity"] for name, rule in rules("alert").items()}
