"""The policy: what each kind of line does, and that nothing else is allowed."""

from datetime import UTC, datetime, time

import pytest

from finsight.domain.access import Principal
from finsight.domain.actions import ACTIONS
from finsight.domain.policy import Circumstances, Condition, Decision, Grant, Policy, Refusal, Resource, Role, Share, decide

SATURDAY, MONDAY = datetime(2026, 11, 28, 12, 0, tzinfo=UTC), datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
ROLES = {
    "reader": Role(frozenset({"jobs.read"})),
    "maker": Role(frozenset({"jobs.create.score"}), own=frozenset({"jobs.cancel"}), includes=("reader",)),
    "chief": Role(frozenset({"jobs.*", "models.*"}), includes=("maker",)),
}
POLICY = Policy(ROLES)


def asked(
    action: str,
    roles: str = "maker",
    resource: Resource | None = None,
    policy: Policy = POLICY,
    scopes: str = "",
    when: datetime = MONDAY,
    environment: str = "production",
) -> Decision:
    principal = Principal("ann", "acme", frozenset(roles.split()), frozenset(scopes.split()))
    return decide(policy, principal, action, Circumstances(when, environment), resource)


@pytest.mark.parametrize("action", ACTIONS)
def test_without_a_line_nothing_is_allowed(action: str) -> None:
    assert not asked(action, policy=Policy({})).allowed
    assert not asked(action, roles="", policy=POLICY).allowed
    assert not asked(action, roles="unheard-of").allowed


def test_a_role_may_what_it_includes_and_no_more() -> None:
    assert asked("jobs.read").allowed
    assert not asked("jobs.create.score", roles="reader").allowed
    assert not asked("jobs.create.train").allowed
    assert asked("jobs.create.train", roles="chief").allowed
    assert not asked("keys.create", roles="chief").allowed


def test_roles_that_include_each_other_end() -> None:
    ring = Policy({"a": Role(frozenset({"predict"}), includes=("b",)), "b": Role(includes=("a",))})
    assert asked("predict", roles="b", policy=ring).allowed


def test_the_door_of_a_family_is_open_to_who_may_do_one_kind() -> None:
    assert asked("jobs.create").allowed
    assert not asked("jobs.create", roles="reader").allowed
    assert not asked("jobs.creat", roles="chief maker reader", policy=Policy({"maker": ROLES["maker"]})).allowed


def test_scopes_narrow_and_never_widen() -> None:
    assert asked("jobs.read", scopes="jobs.read").allowed
    assert not asked("jobs.create.score", scopes="jobs.read").allowed
    assert not asked("models.promote", scopes="models.promote").allowed
    assert asked("jobs.create", scopes="jobs.*").allowed


def test_what_is_only_ones_own() -> None:
    assert asked("jobs.cancel").allowed  # at the door
    assert asked("jobs.cancel", resource=Resource("job", "1", "acme", "ann")).allowed
    found = asked("jobs.cancel", resource=Resource("job", "1", "acme", "bob"))
    assert (found.allowed, found.hidden) == (False, False)
    assert asked("jobs.cancel", roles="chief", resource=Resource("job", "1", "acme", "bob")).allowed


def test_another_tenants_thing_is_hidden_from_every_role() -> None:
    for action in ("jobs.read", "jobs.cancel", "keys.create"):
        found = asked(action, roles="chief", resource=Resource("job", "1", "other", "ann"))
        assert (found.allowed, found.hidden) == (False, True)


def test_what_is_nobodys_is_everybodys() -> None:
    assert asked("models.promote", roles="chief", resource=Resource("model", "3")).allowed


@pytest.mark.parametrize(
    "line", [Share(frozenset({"jobs.*"}), frozenset({"ann"})), Share(frozenset({"jobs.*"}), tenants=frozenset({"acme"}))]
)
def test_an_access_list_reaches_over_tenants_and_owners(line: Share) -> None:
    thing = Resource("job", "1", "other", "bob", shares=(line,))
    assert asked("jobs.read", resource=thing).allowed
    assert asked("jobs.cancel", resource=thing).allowed
    assert not asked("jobs.cancel", roles="reader", resource=thing).allowed  # it gives no right that no role gives
    assert not asked("jobs.read", scopes="predict", resource=thing).allowed
    listed = Policy(ROLES, shares={("job", "1"): (line,)})
    assert asked("jobs.read", resource=Resource("job", "1", "other"), policy=listed).allowed
    assert asked("jobs.read", resource=Resource("job", "2", "other"), policy=listed).hidden


def test_an_access_list_is_for_its_actions_and_its_people_alone() -> None:
    assert asked(
        "jobs.cancel", resource=Resource("job", "1", "other", shares=(Share(frozenset({"jobs.read"}), frozenset({"ann"})),))
    ).hidden
    assert asked("jobs.read", resource=Resource("job", "1", "other", shares=(Share(frozenset({"jobs.read"}), frozenset({"bob"})),))).hidden


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        (Condition(), True),
        (Condition(tenants=frozenset({"acme"})), True),
        (Condition(tenants=frozenset({"other"})), False),
        (Condition(models=frozenset({"finsight"})), True),
        (Condition(models=frozenset({"other"})), False),
        (Condition(environments=frozenset({"production"})), True),
        (Condition(environments=frozenset({"staging"})), False),
        (Condition(weekdays=frozenset({0})), True),
        (Condition(weekdays=frozenset({5, 6})), False),
        (Condition(hours=(time(12), time(13))), True),
        (Condition(hours=(time(11), time(12))), False),
        (Condition(hours=(time(22), time(13))), True),
        (Condition(hours=(time(22), time(12))), False),
        (Condition(tenants=frozenset({"acme"}), weekdays=frozenset({6})), False),
    ],
)
def test_grants_and_refusals_count_where_all_of_their_condition_holds(when: Condition, holds: bool) -> None:
    model = Resource("model", "3", model="finsight")
    grants = Policy(ROLES, grants=(Grant(frozenset({"reader"}), frozenset({"models.promote"}), when),))
    assert asked("models.promote", resource=model, policy=grants).allowed == holds  # maker includes reader
    refusals = Policy(ROLES, refusals=(Refusal(frozenset({"models.*"}), "not now", frozenset(), when),))
    found = asked("models.promote", roles="chief", resource=model, policy=refusals)
    assert found.allowed != holds
    assert (found.reason == "not now") == holds
    assert asked("jobs.read", resource=model, policy=refusals).allowed


def test_a_refusal_spares_a_role() -> None:
    policy = Policy(ROLES, refusals=(Refusal(frozenset({"jobs.*"}), "frozen", frozenset({"chief"}), Condition(weekdays=frozenset({5}))),))
    assert asked("jobs.read", roles="chief", policy=policy, when=SATURDAY).allowed
    assert not asked("jobs.read", policy=policy, when=SATURDAY).allowed
    assert asked("jobs.read", policy=policy, when=MONDAY).allowed


def test_a_condition_on_models_waits_for_the_model() -> None:
    when = Condition(models=frozenset({"finsight"}))
    assert asked(
        "models.promote", policy=Policy(ROLES, grants=(Grant(frozenset({"reader"}), frozenset({"models.promote"}), when),))
    ).allowed
    refusals = Policy(ROLES, refusals=(Refusal(frozenset({"models.promote"}), "no", frozenset(), when),))
    assert asked("models.promote", roles="chief", policy=refusals).allowed
