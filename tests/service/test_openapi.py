"""The OpenAPI document: complete, true of the live service, and good enough to make a client from."""

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import Project
from finsight.service.app import described
from finsight.service.openapi import operations
from released import KEY, served

HERE = Path(__file__).parent
SLOW = ("show_lineage", "compare_experiments")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return described()


def test_every_route_is_described(document: dict[str, Any]) -> None:
    found = list(operations(document))
    assert len(found) >= 13
    names = [operation["operationId"] for operation in found]
    assert len(set(names)) == len(names)
    tags = {tag["name"] for tag in document["tags"] if tag["description"]}
    for operation in found:
        name = operation["operationId"]
        assert name.isidentifier(), name
        assert operation["summary"], name
        assert operation["description"].endswith("."), name
        assert operation["tags"], name
        assert set(operation["tags"]) <= tags, name
        for parameter in operation.get("parameters", []):
            assert parameter["description"], f"{name}: {parameter['name']}"
            schema = parameter["schema"]
            assert parameter.get("examples") or "example" in parameter or schema.get("examples"), f"{name}: {parameter['name']}"


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def test_every_body_has_an_example(document: dict[str, Any]) -> None:
    for operation in operations(document):
        bodies = [*operation["responses"].values(), *filter(None, [operation.get("requestBody")])]
        for body in bodies:
            for kind, content in body.get("content", {}).items():
                known = {**resolved(document, content.get("schema", {})), **content}
                assert "example" in known or "examples" in known, f"{operation['operationId']}: {kind}"


def test_every_refusal_is_a_problem_document(document: dict[str, Any]) -> None:
    for operation in operations(document):
        refusals = {status: body for status, body in operation["responses"].items() if int(status) >= 400}
        assert refusals or operation["tags"] == ["health"]
        for status, body in refusals.items():
            (kind,) = body["content"]
            assert kind == "application/problem+json"
            assert body["content"][kind]["example"]["status"] == int(status)
            assert body["description"]
    assert "HTTPValidationError" not in json.dumps(document)


def test_every_scheme_of_security_is_described(document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]
    assert any(scheme.get("name") == "X-API-Key" for scheme in schemes.values())
    for name, scheme in schemes.items():
        assert scheme["description"], name
    for operation in operations(document):
        assert (operation["tags"] == ["health"] or operation["operationId"] == "make_token") != bool(operation.get("security"))


@pytest.mark.long
def test_the_command_prints_what_the_service_answers(service: httpx.Client) -> None:
    printed = subprocess.run([sys.executable, "-m", "finsight.cli", "openapi"], capture_output=True, check=True)
    assert json.loads(printed.stdout) == service.get("/openapi.json").json()


@pytest.fixture(scope="module")
def apart(released: Project, redis_server: str) -> Iterator[httpx.Client]:
    """A service whose registry may be changed at will."""
    kept = released.root / "fuzzed.db"
    shutil.copy(released.root / "released.db", kept)
    # Cases with wrong credentials are many: each comes from an address of its own (address.py), or the rest would be refused for them.
    limits = "; ".join(f"{name}=1000000/second" for name in ("*", "predict", "unknown", "auth.token"))
    held_to = {"FINSIGHT_LIMITS": limits, "FINSIGHT_TRUSTED_PROXIES": "127.0.0.0/8", "FINSIGHT_REDIS_URL": redis_server}
    with served(released, MLFLOW_TRACKING_URI=f"sqlite:///{kept}", **held_to) as client:
        yield client


def address(service: httpx.Client) -> str:
    return str(service.base_url).rstrip("/")


def schemathesis(document: str | Path, service: httpx.Client, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).parent / "schemathesis", "--config-file", HERE / "schemathesis.toml", "run", document]
    given = ["--url", address(service), "-H", f"X-API-Key: {KEY}", "--no-color", *options]
    made = service.post("/v1/keys", json={"name": "fuzz", "roles": ["scorer"], "days": 1}).json()
    client = f"{made['id']}:{made['client_secret']}"
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "address", "PYTHONPATH": str(HERE), "FUZZ_CLIENT": client}
    return subprocess.run([*command, *given], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.long
def test_the_service_does_what_the_document_says(apart: httpx.Client, tmp_path: Path) -> None:
    slow = [option for name in SLOW for option in ("--exclude-operation-id", name)]
    few = ("--phases", "examples,coverage,fuzzing", "-n", "8", "--max-time", "30")
    done = schemathesis(f"{address(apart)}/openapi.json", apart, tmp_path, *few, *slow)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert 'finsight_requests_total{method="POST",route="/v1/auth/token",status="200"}' in apart.get("/metrics").text, "no token was made"


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_thousands_of_cases_find_no_answer_that_is_not_documented(apart: httpx.Client, tmp_path: Path) -> None:
    phases = ("examples", "coverage", "fuzzing", "stateful")
    many = ("--phases", ",".join(phases), "-n", "100", "--max-time", "420", "--report", "json", "--report-json-path", "report.json")
    done = schemathesis(f"{address(apart)}/openapi.json", apart, tmp_path, *many)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    report = json.loads((tmp_path / "report.json").read_text())
    assert {name: phase["status"] for name, phase in report["phases"].items()} == dict.fromkeys(phases, "success")
    assert report["operations"]["tested"] == report["operations"]["total"]
    assert report["test_cases"]["generated"] > 2000, report["test_cases"]


@pytest.mark.long
def test_a_document_that_says_something_else_is_found_out(apart: httpx.Client, tmp_path: Path, document: dict[str, Any]) -> None:
    wrong = json.loads(json.dumps(document))
    wrong["components"]["schemas"]["Version"]["properties"]["version"] = {"type": "string"}
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(wrong))
    done = schemathesis(path, apart, tmp_path, "--include-operation-id", "list_models", "--phases", "examples")
    assert done.returncode == 1
    assert "Response violates schema" in done.stdout


@pytest.mark.long
def test_a_generated_client_works(apart: httpx.Client, tmp_path: Path) -> None:
    # An environment of its own: the generator asks for another typer than our packages get.
    venv.create(tmp_path / "venv", with_pip=True)
    tool = tmp_path / "venv/bin"
    subprocess.run([tool / "pip", "install", "-q", "openapi-python-client==0.29.1"], check=True)
    (tmp_path / "openapi.json").write_text(json.dumps(described()))
    command = [tool / "openapi-python-client", "generate", "--path", "openapi.json", "--meta", "none", "--output-path", "made"]
    path = {"PATH": os.pathsep.join([str(tool), os.environ["PATH"]])}  # it formats what it made with its own ruff
    # What it is to make of a body that is a table.
    (tmp_path / "config.yml").write_text("content_type_overrides: {text/csv: application/octet-stream}\n")
    done = subprocess.run([*command, "--config", "config.yml", "--fail-on-warning"], cwd=tmp_path, env=path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    script = tmp_path / "use.py"
    script.write_text(CLIENT)
    used = subprocess.run([sys.executable, script, address(apart), KEY], cwd=tmp_path, capture_output=True, text=True)
    assert used.returncode == 0, used.stderr
    assert json.loads(used.stdout) == {
        "versions": [2, 1],
        "labels": 2,
        "refused": "no such version",
        "comparison": ["champion", "2"],
        "unauthorised": 401,
        "scoring": ["score", "text"],
    }


CLIENT = """
import json, sys
from io import BytesIO
from made import AuthenticatedClient
from made.api.jobs import score
from made.api.experiments import compare_experiments
from made.api.models import list_models, show_model
from made.api.predictions import predict
from made.models import PredictRequest, ProblemDocument
from made.types import File

url, key = sys.argv[1:]
client = AuthenticatedClient(base_url=url, token=key, prefix="", auth_header_name="X-API-Key", timeout=120)
page = list_models.sync(client=client)
answer = predict.sync(client=client, body=PredictRequest(texts=["Profit rose", "Profit fell"]))
missing = show_model.sync(client=client, version="99")
compared = compare_experiments.sync(client=client, base="champion", new="2")
job = score.sync(client=client, body=File(payload=BytesIO(b"text\\nProfit rose\\n")), text="text")
stranger = AuthenticatedClient(base_url=url, token="wrong", prefix="", auth_header_name="X-API-Key")
print(json.dumps({
    "versions": [one.version for one in page.items],
    "labels": len(answer.predictions),
    "refused": missing.detail.split(": ")[1].split(";")[0],
    "comparison": [compared.base, compared.new],
    "scoring": [job.kind, job.parameters["text"]],
    "unauthorised": list_models.sync_detailed(client=stranger).status_code,
}))
"""
