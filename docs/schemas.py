"""What the schemas of params.yaml and the settings say, as rows of tables; for docs/generate.py."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from finsight.params.file import Params, load_yaml
from finsight.settings import Settings

PARAMS = Path(__file__).parents[1] / "params.yaml"

# What has no words of its own in the schema.
UNSAID = {
    "format": "What the files are: [formats](data.md#what-can-be-read).",
    "thresholds": "Label → the highest score that still gets it, ascending: `{negative: -0.1, neutral: 0.1, positive: 1.0}`.",
}

# What src reads or sets beside the settings, most of it for libraries; tests/docs/test_documentation.py finds one that is missing.
ELSEWHERE = {
    "FINSIGHT_FORMAT": "The format that predicts, such as `onnx-fp32`; unset: [which format](export.md#which-format-predicts).",
    "FINSIGHT_EVENTS": "File that a running command adds what happens to, an object a line; workers set it for their jobs.",
    "FINSIGHT_CORRELATION_ID": "Correlation id that a worker hands to the commands of its job.",
    "AWS_ACCESS_KEY_ID": "Key of S3, for data, models, MLflow's artifacts and `FINSIGHT_OBJECTS`.",
    "AWS_SECRET_ACCESS_KEY": "Its secret. *A secret.*",
    "AWS_SESSION_TOKEN": "Of temporary credentials. *A secret.*",
    "AWS_PROFILE": "Section of `~/.aws/credentials` to take them from.",
    "AWS_DEFAULT_REGION": "Region of S3; `make mlflow` sets `us-east-1` for its own server.",
    "AWS_CA_BUNDLE": "PEM file of the authority that an S3 server's certificate is checked against.",
    "AWS_REQUEST_CHECKSUM_CALCULATION": "`when_required` unless you set it: not every S3 server knows the newer checksums.",
    "AWS_RESPONSE_CHECKSUM_VALIDATION": "Likewise.",
    "MLFLOW_TRACKING_USERNAME": "Login at an MLflow server.",
    "MLFLOW_TRACKING_PASSWORD": "Its password. *A secret.*",
    "MLFLOW_TRACKING_TOKEN": "Or a bearer token. *A secret.*",
    "MLFLOW_TRACKING_SERVER_CERT_PATH": "PEM file of the authority that signed an MLflow server's certificate.",
    "MLFLOW_S3_ENDPOINT_URL": "S3 server of MLflow's artifacts, where it is not that of `AWS_ENDPOINT_URL`.",
    "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE": "`make mlflow` sets `path` for its own server.",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "Seconds that a request to MLflow may take; 20 unless you set it, more for files.",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "Tries of one; 2 unless you set it.",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "How the pauses between them grow; 1 unless you set it.",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "`false` unless you set it.",
    "MLFLOW_DISABLE_TELEMETRY": "`true` unless you set it: [privacy](privacy.md).",
    "MLFLOW_UV_AUTO_DETECT": "`false` unless you set it: a `uv.lock` in the working folder is not the model's.",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "`make mlflow` sets `false`: its server runs no jobs.",
}


class Key(NamedTuple):
    """A row of the tables of params.yaml."""

    name: str
    takes: str
    value: str
    meaning: str


def sections() -> Iterator[tuple[str, str, list[Key]]]:
    """Each section of params.yaml, a kind of corpus each: its name, what it is, its keys."""
    schema = Params.model_json_schema(by_alias=True)
    definitions, remarks, values = schema["$defs"], comments(PARAMS.read_text()), load_yaml(PARAMS)
    for name, field in Params.model_fields.items():
        alias, models = field.alias or name, _models(field)
        known: set[Key] = set()
        if not models:
            yield alias, "", [_row(alias, schema["properties"][alias], definitions, _shown(values[alias]), "", remarks)]
        for model in models:
            one = model is field.annotation
            rows = _rows(alias if one else f"{alias}.NAME", model, definitions, values[alias] if one else None, remarks)
            keys = [row for row in rows if row not in known]
            title = alias if len(models) == 1 else f"{alias}: {model.__name__.removesuffix('Corpus').lower()}"
            yield title, _words(model.__doc__) + (" Keys that every corpus has stand under the first." if known else ""), keys
            known.update(keys)


def variables() -> Iterator[tuple[str, str, str]]:
    """Each environment variable: its name, its default, its meaning."""
    said = _docstrings(Settings)
    for name, field in Settings.model_fields.items():
        default = "`~/.cache/finsight`" if name == "cache" else _shown(field.get_default(call_default_factory=True))
        secret = " *A secret.*" if SecretStr in getattr(field.annotation, "__args__", ()) else ""
        yield str(field.validation_alias or f"FINSIGHT_{name.upper()}"), default, cell(said[name] + secret)
    for variable, meaning in ELSEWHERE.items():
        yield variable, "", meaning


def cell(text: str) -> str:
    """As it may stand in a table."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def comments(text: str) -> dict[str, str]:
    """Dotted key → what params.yaml says of it, in the lines above and at the end of its own."""
    found: dict[str, str] = {}
    above: list[str] = []
    at: list[tuple[int, str]] = []
    for line in text.splitlines():
        if remark := re.match(r"\s*#\s?(.*)", line):
            above.append(remark[1])
            continue
        if key := re.match(r"(\s*)([\w.=-]+):(?:\s|$)", line):
            at = [*(pair for pair in at if pair[0] < len(key[1])), (len(key[1]), key[2])]
            beside = re.search(r"\s#\s(.*)$", line)
            if said := [*above, *([beside[1]] if beside else [])]:
                found[".".join(name for _, name in at)] = " ".join(said)
        above = []
    return found


def _takes(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """What a JSON schema lets through, in words."""
    if "$ref" in schema:
        return _takes(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if choices := schema.get("enum") or ([schema["const"]] if "const" in schema else []):
        return " or ".join(f"`{choice}`" for choice in choices)
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return "; or ".join(dict.fromkeys(_takes(option, definitions) for option in options))
    if schema["type"] == "array":
        least = f", at least {schema['minItems']}" if "minItems" in schema else ""
        return f"list{least}: {_takes(schema['items'], definitions)}"
    if schema["type"] == "object" and "properties" in schema:
        return "{" + ", ".join(schema["properties"]) + "}"
    if schema["type"] == "object":
        inner = next(iter(schema.get("patternProperties", {}).values()), schema.get("additionalProperties"))
        return f"mapping to {_takes(inner, definitions)}"
    return _simple(schema)


def _simple(schema: Mapping[str, Any]) -> str:
    """Of one value."""
    name = {"integer": "whole number", "number": "number", "boolean": "`true` or `false`", "string": "text", "null": "empty"}[
        schema["type"]
    ]
    if schema.get("minLength") == schema.get("maxLength") == 1:
        return "a character"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = ", ".join(f"{sign} {schema[bound]:g}" for bound, sign in signs.items() if bound in schema)
    pattern = f"matching `{schema['pattern']}`" if "pattern" in schema else ""
    return " ".join(filter(None, [name, bounds, pattern]))


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "empty"
    if isinstance(value, dict):
        return "`{…}`" if value else "`{}`"
    return f"`{str(value).lower() if isinstance(value, bool) else cell(str(value))}`"


def _models(field: FieldInfo) -> list[type[BaseModel]]:
    """The section that a field is, or those that the values of a mapping may be."""
    if inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel):
        return [field.annotation]
    inner = getattr(field.annotation, "__args__", (str,))[-1]
    inner = getattr(inner, "__origin__", inner)
    return [model for model in getattr(inner, "__args__", (inner,)) if inspect.isclass(model) and issubclass(model, BaseModel)]


def _rows(
    start: str, model: type[BaseModel], definitions: Mapping[str, Any], values: Mapping[str, Any] | None, remarks: Mapping[str, str]
) -> Iterator[Key]:
    """The keys of a section and of those within it.

    :param values: what params.yaml has there; None where a user names the section, and the schema has defaults.
    """
    said = _docstrings(model)
    for name, schema in model.model_json_schema(by_alias=True)["properties"].items():
        field = model.model_fields[name]
        if inner := _models(field) if values and isinstance(values[name], dict) and "$ref" in schema else []:
            assert values is not None  # noqa: S101
            yield from _rows(f"{start}.{name}", inner[0], definitions, values[name], remarks)
        else:
            default = "required" if field.is_required() else _shown(field.get_default(call_default_factory=True))
            yield _row(
                f"{start}.{name}", schema, definitions, default if values is None else _shown(values[name]), said.get(name, ""), remarks
            )


def _row(name: str, schema: Mapping[str, Any], definitions: Mapping[str, Any], value: str, said: str, remarks: Mapping[str, str]) -> Key:
    """What params.yaml says of a key counts first, but for those that a user names: there it speaks of single corpora."""
    pattern = re.escape(name).replace("NAME", r"[\w-]+")
    beside = next((text for key, text in remarks.items() if re.fullmatch(pattern, key)), "")
    meaning = (said or UNSAID.get(name.rpartition(".")[2]) or beside) if "NAME" in name else (beside or said)
    return Key(name, cell(_takes(schema, definitions)), value, cell(meaning))


def _docstrings(model: type) -> dict[str, str]:
    """The strings that stand below the fields of a class and of those that it is made from."""
    found: dict[str, str] = {}
    for one in reversed([base for base in model.__mro__ if base.__module__.startswith("finsight.")]):
        body = ast.parse(inspect.getsource(one)).body[0]
        assert isinstance(body, ast.ClassDef)  # noqa: S101
        for field, below in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                found[field.target.id] = _words(ast.literal_eval(below.value))
    return found


def _words(text: str | None) -> str:
    """The first paragraph of a docstring, as Markdown."""
    plain = inspect.cleandoc(text or "").partition("\n\n")[0].replace("``", "`").replace("\n", " ")
    return re.sub(r":\w+:`[~.]?([^`]+)`", r"`\1`", plain)
