"""Commands about the policy of the service: what it allows, and why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from finsight.command import edge

if TYPE_CHECKING:
    from finsight.domain.policy import Policy


@click.group()
def policy() -> None:
    """Who may do what at the service (FINSIGHT_POLICY, or the policy that the service brings)."""


@policy.command()
@edge
def show() -> None:
    """Print role × action: `yes`, `own` (only on what one made, or what was shared), `when` (under a condition)."""
    from finsight.domain.actions import ACTIONS

    found = _current()
    width = max(map(len, ACTIONS))
    click.secho("  ".join([f"{'action':<{width}}", *found.roles]), bold=True)
    for action in ACTIONS:
        cells = [f"{_cell(found, name, action):<{len(name)}}" for name in found.roles]
        click.echo("  ".join([f"{action:<{width}}", *cells]).rstrip())


def _cell(found: Policy, name: str, action: str) -> str:
    from finsight.domain.actions import covers
    from finsight.domain.policy import Condition, closure

    def meant(patterns: frozenset[str]) -> bool:
        return any(covers(pattern, action) for pattern in patterns)

    roles = closure(found, [name])
    said = "own" if any(meant(found.roles[one].own) for one in roles) else "·"
    if any(one.roles & roles and meant(one.actions) for one in found.grants):
        said = "when"
    if any(meant(found.roles[one].allow) for one in roles):
        said = "yes"
    refusals = [one.when for one in found.refusals if meant(one.actions) and not one.unless & roles]
    if Condition() in refusals:
        return "·"
    return "when" if refusals and said != "·" else said


@policy.command()
@click.option("--role", "roles", multiple=True, required=True, help="May be given more than once.")
@click.option("--action", required=True, help="Such as models.promote.")
@click.option("--scope", "scopes", multiple=True, help="What the credential is narrowed to.")
@click.option("--subject", default="somebody", show_default=True)
@click.option("--tenant", default="local", show_default=True)
@click.option("--of-tenant", help="Whose the thing is that the action is taken on; everybody's by default.")
@click.option("--owner", help="Who made the thing.")
@click.option("--model", default="", help="The registered model that the thing is, or is about.")
@click.option("--environment", help="FINSIGHT_ENVIRONMENT by default.")
@click.option("--at", "when", type=click.DateTime(["%Y-%m-%dT%H:%M"]), help="In UTC; now by default.")
@edge
def check(
    roles: tuple[str, ...],
    action: str,
    scopes: tuple[str, ...],
    subject: str,
    tenant: str,
    of_tenant: str | None,
    owner: str | None,
    model: str,
    environment: str | None,
    when: datetime | None,
) -> None:
    """Say whether a role may do something, and why. Ends with 3 where it may not."""
    from finsight.domain.access import Principal
    from finsight.domain.actions import ACTIONS, PATTERNS
    from finsight.domain.policy import Circumstances, Resource, decide
    from finsight.errors import GateError, ParamsError
    from finsight.settings import load_settings

    found = _current()
    if unknown := [role for role in roles if role not in found.roles]:
        raise ParamsError(f"--role: {', '.join(unknown)} is no role of {', '.join(found.roles)}")
    if not any(action == one or one.startswith(f"{action}.") for one in ACTIONS):
        raise ParamsError(f"--action: {action} is no action; there are {', '.join(ACTIONS)}")
    if wrong := [scope for scope in scopes if scope not in PATTERNS]:
        raise ParamsError(f"--scope: {', '.join(wrong)} is no action, and no beginning of some with .*; there are {', '.join(ACTIONS)}")
    thing = Resource("model" if model else "thing", model, of_tenant, owner, model) if of_tenant or owner or model else None
    at = Circumstances(when or datetime.now(UTC), environment or load_settings().environment)
    decision = decide(found, Principal(subject, tenant, frozenset(roles), frozenset(scopes)), action, at, thing)
    if not decision.allowed:
        raise GateError(f"refused: {decision.reason}")
    click.secho(f"allowed: {decision.reason}", fg="green")


def _current() -> Policy:
    from finsight.service.policy_file import DEFAULT, read_policy
    from finsight.settings import load_settings

    return read_policy(load_settings().policy or DEFAULT)
