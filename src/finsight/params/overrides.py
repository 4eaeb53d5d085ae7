"""Parameters from outside: which keys of params.yaml a job may set, and whether the whole still holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML

from finsight.domain.jobs import Kind
from finsight.errors import ParamsError
from finsight.params import file
from finsight.params.file import Params

_DATA = ("ingest.corpora", "validate")
_TRAINING = (*_DATA, "prepare", "train")
_EVALUATION = (*_TRAINING, "evaluate")
_EXPORT = (*_EVALUATION, "export")
ALLOWED: Mapping[Kind, tuple[str, ...]] = {
    Kind.VALIDATE: _DATA,
    Kind.TRAIN: _TRAINING,
    Kind.EVALUATE: _EVALUATION,
    Kind.EXPORT: _EXPORT,
    Kind.REGISTER: (*_EXPORT, "register.experiments"),
    Kind.TUNE: ("tune.trials",),
}
"""Kind of job → sections and keys that it may set: what shapes a model, and no path, no address, no name in the registry."""
# Within those: addresses, processes, how much memory is used; regular expressions, which can take for ever.
_NEVER = ("train.launch", "train.stream", "prepare.engine", "prepare.workers", "evaluate.slices")
_NAMES = ("train.backbone", "train.teacher")  # which may be folders and URLs in params.yaml; a job takes one that is under `backbones`


def with_overrides(text: str, kind: Kind, overrides: Mapping[str, Any]) -> Params:
    """params.yaml with some keys changed, checked as a whole.

    :param text: params.yaml.
    :param overrides: dotted keys → values, of the types that they have in params.yaml.
    :raises ParamsError: in one line, when a key may not be set by this kind of job, is unknown, or a value can't be.
    """
    content = YAML(typ="safe").load(text)
    refused = [key for key in overrides if not _within(key, ALLOWED[kind]) or _within(key, _NEVER)]
    if refused:
        raise ParamsError(f"{', '.join(sorted(refused))}: can't be set for {kind}; allowed: {', '.join(ALLOWED[kind])}")
    for key, value in overrides.items():
        if isinstance(value, Mapping) or (isinstance(value, list) and any(isinstance(one, (list, Mapping)) for one in value)):
            raise ParamsError(f"{key}: got a mapping; set its keys one by one, with dots")
        if any(isinstance(one, str) and not one.replace("\\", "\0").isprintable() for one in _each(value)):
            raise ParamsError(f"{key}: got a string with a backslash or a character that is not printable")
        if any(isinstance(one, str) and "${" in one for one in _each(value)):  # `dvc exp run -S` would put a variable's value there
            raise ParamsError(f"{key}: got a string with ${{, which means more than itself")
        if key in _NAMES and value is not None and value not in content["backbones"]:
            raise ParamsError(f"{key}: got {value!r}, expected a name under backbones: {', '.join(content['backbones'])}")
        _set(content, key, value)
    return _checked(content)


def parsed(text: str) -> Params:
    """The text of a params.yaml, checked as a whole.

    :raises ParamsError: in one line, on the first key that is unknown, missing, of the wrong type or in contradiction to another.
    """
    return _checked(YAML(typ="safe").load(text))


def _checked(content: Any) -> Params:
    try:
        return Params.model_validate(content)
    except ValidationError as invalid:
        raise ParamsError(file._describe(invalid.errors()[0])) from None  # which register depends on: it stays as it is


def hydra(value: Any) -> str:
    """A value in the grammar of ``dvc exp run -S``, in which an unquoted comma, brace or bracket means something."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case list():
            return f"[{','.join(map(hydra, value))}]"
        case _:
            quoted = str(value).replace("'", "\\'")
            return f"'{quoted}'"


def _within(key: str, places: tuple[str, ...]) -> bool:
    return any(key == place or key.startswith(f"{place}.") for place in places)


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _set(content: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    section: Any = content
    for name in parents:
        section = section.get(name) if isinstance(section, dict) else None
    if not isinstance(section, dict) or isinstance(section.get(last), dict):
        raise ParamsError(f"{key}: unknown key, or a section; set the keys of a section one by one, with dots")
    section[last] = value
