"""The policy as a file: read, checked, or refused in one line; read again when it changes."""

from __future__ import annotations

import logging
from collections import defaultdict
from datetime import time
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from finsight.domain.actions import about_models, known
from finsight.domain.policy import Condition, Grant, Policy, Refusal, Role, Share
from finsight.errors import ParamsError
from finsight.params.file import load_yaml

DEFAULT = Path(__file__).with_name("policy.yaml")
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LOG = logging.getLogger("finsight.service")


def _hours(text: Any) -> tuple[time, time] | None:
    if text is None:
        return None
    try:
        start, end = (time.fromisoformat(part) for part in str(text).split("-"))
    except ValueError:
        raise ValueError('expected hours as "09:00-17:00", in UTC') from None
    return start, end


Actions = frozenset[Annotated[str, AfterValidator(known)]]
Names = frozenset[str]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Role(_Entry):
    allow: Actions = frozenset()
    own: Actions = frozenset()
    includes: tuple[str, ...] = ()


class _When(_Entry):
    tenants: Names = frozenset()
    models: Names = frozenset()
    environments: Names = frozenset()
    weekdays: frozenset[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]] = frozenset()
    hours: Annotated[tuple[time, time] | None, BeforeValidator(_hours)] = None

    def condition(self) -> Condition:
        days = frozenset(WEEKDAYS.index(day) for day in self.weekdays)
        return Condition(self.tenants, self.models, self.environments, days, self.hours)


class _Grant(_Entry):
    roles: Annotated[Names, Field(min_length=1)]
    actions: Actions
    when: _When


class _Refusal(_Entry):
    actions: Actions
    because: str
    unless: Names = frozenset()
    when: _When = _When()


class _Share(_Entry):
    kind: str
    name: str
    actions: Actions
    subjects: Names = frozenset()
    tenants: Names = frozenset()


class _File(_Entry):
    roles: dict[str, _Role]
    grants: tuple[_Grant, ...] = ()
    refusals: tuple[_Refusal, ...] = ()
    shares: tuple[_Share, ...] = ()

    @model_validator(mode="after")
    def _models_are_asked_for_where_there_is_one(self) -> Self:
        lines = {f"grants.{i}": (one.when, one.actions) for i, one in enumerate(self.grants)}
        lines |= {f"refusals.{i}": (one.when, one.actions) for i, one in enumerate(self.refusals)}
        for key, (when, actions) in lines.items():
            if when.models and (others := sorted(one for one in actions if not about_models(one))):
                raise ValueError(f"{key}.when.models: {others[0]} is about no registered model; models.* and lineage.read are")
        return self

    @model_validator(mode="after")
    def _roles_are_known(self) -> Self:
        named = {f"roles.{name}.includes": set(role.includes) for name, role in self.roles.items()}
        named |= {f"grants.{i}.roles": set(grant.roles) for i, grant in enumerate(self.grants)}
        named |= {f"refusals.{i}.unless": set(refusal.unless) for i, refusal in enumerate(self.refusals)}
        for key, roles in named.items():
            if unknown := sorted(roles - self.roles.keys()):
                raise ValueError(f"{key}: {', '.join(unknown)} is no role of {', '.join(self.roles)}")
        return self

    def policy(self) -> Policy:
        shares: defaultdict[tuple[str, str], list[Share]] = defaultdict(list)
        for line in self.shares:
            shares[line.kind, line.name].append(Share(line.actions, line.subjects, line.tenants))
        return Policy(
            {name: Role(role.allow, role.own, role.includes) for name, role in self.roles.items()},
            tuple(Grant(grant.roles, grant.actions, grant.when.condition()) for grant in self.grants),
            tuple(Refusal(one.actions, one.because, one.unless, one.when.condition()) for one in self.refusals),
            {thing: tuple(lines) for thing, lines in shares.items()},
        )


def read_policy(path: Path = DEFAULT) -> Policy:
    """The policy that a file describes.

    :raises ParamsError: naming path and key, when it is missing or describes none.
    """
    if not path.is_file():
        raise ParamsError(f"{path}: no such file; FINSIGHT_POLICY names the policy, and without it the service has one of its own")
    try:
        return _File.model_validate(dict(load_yaml(path))).policy()
    except ValidationError as invalid:
        first = invalid.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = "unknown key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
        raise ParamsError(f"{path}: {f'{where}: ' if where else ''}{message}") from None


class PolicyFile:
    """A policy that follows its file.

    :raises ParamsError: when the file is wrong at the start. A wrong version that comes later is told to the log once, and the one before
        it stays.
    """

    def __init__(self, path: Path = DEFAULT) -> None:
        self._path = path
        self._seen = self._stamp()
        self._policy = read_policy(path)

    def current(self) -> Policy:
        """The policy that counts now."""
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen = stamp
            try:
                self._policy = read_policy(self._path)
                _LOG.warning("%s: read again", self._path)
            except (ParamsError, OSError) as error:
                _LOG.error("%s; the policy from before stays", error)
        return self._policy

    def _stamp(self) -> tuple[int, int, int]:
        try:
            found = self._path.stat()
        except OSError:
            return (0, 0, 0)  # replaced at this moment, or gone
        return (found.st_mtime_ns, found.st_size, found.st_ino)
