"""Who may do what: a policy, and what it says of somebody, an action and a thing. What no line of it allows is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, time

from finsight.domain.access import Principal
from finsight.domain.actions import covers


@dataclass(frozen=True, slots=True)
class Share:
    """A line of an access list: subjects and tenants that one thing is shared with, and for which actions (patterns)."""

    actions: frozenset[str]
    subjects: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Resource:
    """A thing that an action is taken on.

    :param kind: ``job``, ``model``.
    :param tenant: whose it is; None where it is every tenant's, as the versions of the registry are.
    :param owner: the subject that made it.
    :param model: the registered model that it is, or is about.
    :param shares: its access list.
    """

    kind: str
    name: str
    tenant: str | None = None
    owner: str | None = None
    model: str = ""
    shares: tuple[Share, ...] = ()


@dataclass(frozen=True, slots=True)
class Circumstances:
    """When and where something is asked.

    :param when: in UTC.
    :param environment: of the service, such as ``production``.
    """

    when: datetime
    environment: str


@dataclass(frozen=True, slots=True)
class Condition:
    """What has to hold for a line to count; what is empty holds always.

    :param weekdays: 0 is Monday.
    :param hours: from, and until before; over midnight where the first is the later one.
    """

    tenants: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    environments: frozenset[str] = frozenset()
    weekdays: frozenset[int] = frozenset()
    hours: tuple[time, time] | None = None

    def holds(self, principal: Principal, at: Circumstances, resource: Resource | None, before: bool) -> bool:
        """Whether all of it holds.

        :param before: what a condition on models says before the thing is known.
        """
        return (
            (not self.tenants or principal.tenant in self.tenants)
            and (not self.models or (before if resource is None else resource.model in self.models))
            and (not self.environments or at.environment in self.environments)
            and (not self.weekdays or at.when.weekday() in self.weekdays)
            and (self.hours is None or _between(at.when.time(), *self.hours))
        )


@dataclass(frozen=True, slots=True)
class Role:
    """What a role may do.

    :param allow: patterns of actions: an action, or a beginning and ``.*``.
    :param own: patterns that are allowed on what one has made oneself, or was shared with one.
    :param includes: roles whose lines count for this one too.
    """

    allow: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()
    includes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Grant:
    """Actions that some roles may take where a condition holds."""

    roles: frozenset[str]
    actions: frozenset[str]
    when: Condition


@dataclass(frozen=True, slots=True)
class Refusal:
    """Actions that nobody may take where a condition holds, whatever else is allowed.

    :param unless: roles that may nevertheless.
    """

    actions: frozenset[str]
    because: str
    unless: frozenset[str]
    when: Condition


@dataclass(frozen=True, slots=True)
class Policy:
    """Roles by their names; lines that count under conditions; access lists of things by (kind, name)."""

    roles: Mapping[str, Role]
    grants: tuple[Grant, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    shares: Mapping[tuple[str, str], tuple[Share, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy says, and why.

    :param hidden: refused in such a way that whoever asks must not learn whether the thing exists.
    """

    allowed: bool
    reason: str
    hidden: bool = False


def decide(policy: Policy, principal: Principal, action: str, at: Circumstances, resource: Resource | None = None) -> Decision:
    """Whether somebody may do something with a thing.

    An access list says which things somebody reaches beyond their tenant's and their own; that they may do it at all, role and scopes say.

    :param resource: None at the door of a route, before its thing is known. There ``jobs.create`` is open to whoever may create any kind.
    """
    shared = resource is not None and _shared(policy, principal, action, resource)
    if resource and resource.tenant not in (None, principal.tenant) and not shared:
        return Decision(False, f"the {resource.kind} is another tenant's, and not shared with {principal.subject}", hidden=True)
    if principal.scopes and not _any(principal.scopes, action):
        return Decision(False, f"the credential is narrowed to {', '.join(sorted(principal.scopes))}")
    roles = closure(policy, principal.roles)
    for refusal in policy.refusals:
        meant = any(covers(pattern, action) for pattern in refusal.actions) and not roles & refusal.unless
        if meant and refusal.when.holds(principal, at, resource, before=False):
            return Decision(False, refusal.because)
    return _allowed(policy, principal, action, at, resource, roles, shared)


def _allowed(
    policy: Policy, principal: Principal, action: str, at: Circumstances, resource: Resource | None, roles: frozenset[str], shared: bool
) -> Decision:
    for name in sorted(roles):
        if _any(policy.roles[name].allow, action):
            return Decision(True, f"role {name} allows it")
    for grant in policy.grants:
        if grant.roles & roles and _any(grant.actions, action) and grant.when.holds(principal, at, resource, before=True):
            return Decision(True, f"role {min(grant.roles & roles)} allows it under these circumstances")
    for name in sorted(roles):
        if _any(policy.roles[name].own, action):
            if resource is None:
                return Decision(True, f"role {name} allows it on what is one's own")
            if shared or resource.owner == principal.subject:
                return Decision(True, f"role {name} allows it, and the {resource.kind} is theirs or shared with them")
            return Decision(False, f"role {name} allows it only on what is one's own")
    return Decision(False, f"no role of {', '.join(sorted(principal.roles)) or 'none'} allows it")


def closure(policy: Policy, roles: Iterable[str]) -> frozenset[str]:
    """Roles of the policy with all that they include. A role that the policy doesn't know allows nothing."""
    found: set[str] = set()
    rest = list(roles)
    while rest:
        name = rest.pop()
        if name in policy.roles and name not in found:
            found.add(name)
            rest += policy.roles[name].includes
    return frozenset(found)


def _any(patterns: Iterable[str], action: str) -> bool:
    # The second half is the door: who may do jobs.create.score may come to jobs.create, and is asked again once the kind is known.
    return any(covers(pattern, action) or pattern.startswith(f"{action}.") for pattern in patterns)


def _shared(policy: Policy, principal: Principal, action: str, resource: Resource) -> bool:
    lines = (*resource.shares, *policy.shares.get((resource.kind, resource.name), ()))
    return any(
        (principal.subject in line.subjects or principal.tenant in line.tenants) and any(covers(one, action) for one in line.actions)
        for line in lines
    )


def _between(now: time, start: time, end: time) -> bool:
    return start <= now < end if start <= end else now >= start or now < end
