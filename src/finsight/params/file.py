"""params.yaml as a whole: read, checked, or refused in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from finsight.errors import ParamsError
from finsight.params.backbones import BackboneParams
from finsight.params.base import Section
from finsight.params.corpora import AnyCorpus
from finsight.params.evaluate import EvaluateParams
from finsight.params.export import ExportParams
from finsight.params.gates import GateParams
from finsight.params.ingest import IngestParams
from finsight.params.prepare import PrepareParams
from finsight.params.register import RegisterParams
from finsight.params.train import LaunchParams, TrainParams
from finsight.params.tune import TuneParams
from finsight.params.validate import ValidateParams


class Params(Section):
    """Every section; each stage reads only its own, and all are checked before any stage works."""

    # What MLflow takes in a metric's name, and no space at the ends: a file's labels are stripped.
    labels: Annotated[list[Annotated[str, Field(pattern=r"^\w([\w .-]*\w)?$")]], Field(min_length=2)]
    polarity: dict[str, Annotated[float, Field(ge=-1, le=1)]]
    """Label → where it stands between worst (-1) and best (1); empty where the labels have no order."""
    corpora: dict[str, AnyCorpus]
    backbones: dict[str, BackboneParams]
    ingest: IngestParams
    validate_: ValidateParams = Field(alias="validate")  # BaseModel has a deprecated method of that name
    prepare: PrepareParams
    train: TrainParams
    tune: TuneParams
    evaluate: EvaluateParams
    gates: GateParams
    export: ExportParams
    register_: RegisterParams = Field(alias="register")  # ABCMeta has a method of that name

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels: got {self.labels}, expected each label once")
        if self.polarity and set(self.polarity) != set(self.labels):
            raise ValueError(
                f"polarity: got {sorted(self.polarity)}, expected a number for each of {self.labels}, or {{}} where they have no order"
            )
        for name in self.ingest.corpora:
            if name not in self.corpora:
                raise ValueError(
                    f"ingest.corpora: {name!r} is not under corpora (there: {', '.join(sorted(self.corpora))}); see `finsight corpus add`"
                )
        for name, corpus in self.corpora.items():
            path = PurePosixPath(corpus.path)
            if ".." in path.parts or not any(path.is_relative_to(folder) for folder in ("data/starter", "data/external")):
                raise ValueError(
                    f"corpora.{name}.path: {corpus.path} is not below data/starter or data/external, where DVC would see it change; "
                    f"bring it in with `finsight corpus add {name} {corpus.path}`"
                )
            if outside := sorted({to for to in corpus.label_map.values() if to is not None} - set(self.labels)):
                raise ValueError(f"corpora.{name}.label_map: {outside} are not in labels {self.labels}")
            thresholds = getattr(corpus, "thresholds", {})
            if outside := sorted(set(thresholds) - set(self.labels)):
                raise ValueError(f"corpora.{name}.thresholds: {outside} are not in labels {self.labels}")
            if list(thresholds.values()) != sorted(thresholds.values()):
                raise ValueError(f"corpora.{name}.thresholds: got {thresholds}, expected ascending limits")
            if corpus.format == "phrasebank" and corpus.split == "finbert" and corpus.agreement != 50:
                raise ValueError(f"corpora.{name}.split: finbert is defined on agreement 50, got {corpus.agreement}")
        if unknown := sorted(set(self.ingest.unlabelled) - set(self.corpora)):
            raise ValueError(f"ingest.unlabelled: {unknown} are not under corpora {sorted(self.corpora)}")
        if both := sorted(set(self.ingest.unlabelled) & set(self.ingest.corpora)):
            raise ValueError(f"ingest.unlabelled: {both} are in ingest.corpora too; take them out of one of the two")
        if unknown := sorted(set(self.prepare.split.held_out) - set(self.ingest.corpora)):
            raise ValueError(f"prepare.split.held_out: {unknown} are not in ingest.corpora {self.ingest.corpora}")
        if self.prepare.split.held_out and set(self.prepare.split.held_out) == set(self.ingest.corpora):
            raise ValueError("prepare.split.held_out: every corpus of ingest.corpora is held out, expected one for training")
        if self.evaluate.primary == "ordinal_error" and not self.polarity:
            raise ValueError("evaluate.primary: ordinal_error needs polarity, which is empty")
        return self


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read params.yaml as YAML 1.2, as DVC does (PyYAML reads ``2e-5`` as a string).

    :raises ParamsError: on the first key that is unknown, missing, of the wrong type or in contradiction to another.
    """
    content = load_yaml(path)
    try:
        return Params.model_validate(content)
    except ValidationError as invalid:
        errors = invalid.errors()
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise ParamsError(f"{path}: {_describe(errors[0])}{more}") from None


def on_this_machine(train: TrainParams, changes: Mapping[str, str]) -> TrainParams:
    """``train`` with some keys of its ``launch`` changed, as FINSIGHT_LAUNCH names them.

    :raises ParamsError: when a key is unknown, or a value can't be.
    """
    if unknown := sorted(changes.keys() - LaunchParams.model_fields.keys()):
        raise ParamsError(f"FINSIGHT_LAUNCH: {unknown[0]}: unknown key; allowed: {', '.join(LaunchParams.model_fields)}")
    texts = {key: str(value) for key, value in train.launch.model_dump().items()} | dict(changes)
    try:
        launch = LaunchParams.model_validate_strings(texts)
        return TrainParams.model_validate(train.model_dump() | {"launch": launch.model_dump()})
    except ValidationError as invalid:
        raise ParamsError(f"FINSIGHT_LAUNCH: {_describe(invalid.errors()[0])}") from None


def read_lock(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """What a dvc.lock says, which may be of another version of this project: the dotted keys and values that its stages were run with, and
    the digest of each output by its path.

    :raises ParamsError: when it is no mapping in YAML.
    """
    stages = (load_yaml(path).get("stages") or {}).values()
    return locked_params(path), {out["path"]: str(out.get("md5", "")) for stage in stages for out in stage.get("outs", [])}


def locked_params(path: Path, but: str = "") -> dict[str, Any]:
    """The dotted keys and values that the stages of a dvc.lock were run with, all but one stage."""
    stages = [stage for name, stage in (load_yaml(path).get("stages") or {}).items() if name != but]
    return dotted({key: value for stage in stages for found in stage.get("params", {}).values() for key, value in found.items()})


def locked_files(path: Path, but: str) -> dict[str, dict[str, str]]:
    """Every file and folder that the stages of a dvc.lock read and wrote, all but one stage → its ``md5`` (that of a folder is of its
    listing and ends in ``.dir``), and the stage that ``made`` it where one did.

    :raises ParamsError: when it is no mapping in YAML.
    """
    stages = {name: stage for name, stage in (load_yaml(path).get("stages") or {}).items() if name != but}
    found = {dep["path"]: {"md5": str(dep.get("md5", ""))} for stage in stages.values() for dep in stage.get("deps", [])}
    made = {out["path"]: {"md5": str(out.get("md5", "")), "made": name} for name, stage in stages.items() for out in stage.get("outs", [])}
    return dict(sorted((found | made).items()))


def dotted(content: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    return dict(_leaves("", content))


def load_yaml(path: Path) -> Mapping[str, Any]:
    """A file's mapping, in YAML 1.2, unchecked.

    :raises ParamsError: when it is missing or no mapping in YAML.
    """
    try:
        content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run from the project's root") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, Mapping):
        raise ParamsError(f"{path}: got {type(content).__name__}, expected a mapping of sections")
    return content


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and not prefix.endswith((".label_map", ".packages")):  # their keys are no names of ours
        for key, inner in value.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), inner)
    else:
        yield prefix, value


def _describe(error: ErrorDetails) -> str:
    # Pydantic puts a union's tag into the path of an error; it is no key of the file.
    tag_at = {"corpora": 2, "tune": 3}.get(str(error["loc"][0])) if error["loc"] else None
    keys = [part for i, part in enumerate(error["loc"]) if i != tag_at]
    path = ".".join(str(k) for k in keys)
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"{path}: unknown key; allowed: {', '.join(_allowed(error['loc']))}"
    if error["type"] == "missing":
        return f"{path}: missing; see the comments in the project's own params.yaml"
    if error["type"] == "value_error":
        return f"{path}: {message}" if path else message
    return f"{path}: got {error['input']!r}; {message[:1].lower()}{message[1:]}"


def _allowed(location: tuple[int | str, ...]) -> list[str]:
    """The keys that the section of an unknown key does know, looked up in the JSON schema."""
    schema = Params.model_json_schema()
    node: dict[str, Any] = schema
    for part in location[:-1]:
        if "oneOf" in node and "discriminator" not in node:
            node = next(kind for kind in node["oneOf"] if kind["$ref"].rpartition("/")[2].lower() == part)
        elif "discriminator" in node:
            node = {"$ref": node["discriminator"]["mapping"][part]}
        else:
            node = node.get("properties", {}).get(part) or node["additionalProperties"]
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return sorted(node["properties"])


def flatten(params: Params) -> dict[str, str]:
    """Dotted keys and values, for a tracker; of the corpora and backbones only those in use."""
    content = params.model_dump(by_alias=True, exclude={"tune", "gates"})
    content["corpora"] = {name: content["corpora"][name] for name in (*params.ingest.corpora, *params.ingest.unlabelled)}
    used = (params.train.backbone, params.train.teacher)
    content["backbones"] = {name: b for name, b in content["backbones"].items() if name in used}
    return {key: str(value) for key, value in dotted(content).items()}
