"""API keys as rules: what a secret is good for and when, and what nobody can give."""

import re

import pytest

from finsight.domain.access import Principal
from finsight.domain.keys import ApiKey, digest_of, excess, new_id, new_secret, parts_of, text_of

OLD, NEW = digest_of("old"), digest_of("new")
KEY = ApiKey("0" * 24, "a key", "local", frozenset({"scorer"}), frozenset(), OLD, 0.0, 100.0, "admin")


@pytest.mark.parametrize(
    ("key", "digest", "now", "until"),
    [
        (KEY, OLD, 0, 100),
        (KEY, OLD, 99.9, 100),
        (KEY, OLD, 100, None),
        (KEY, NEW, 0, None),
        (KEY, "", 0, None),
        (KEY.rotated(NEW, 10, 20), NEW, 10, 100),
        (KEY.rotated(NEW, 10, 20), OLD, 29.9, 30),
        (KEY.rotated(NEW, 10, 20), OLD, 30, None),
        (KEY.rotated(NEW, 90, 20), OLD, 95, 100),
        (KEY.rotated(NEW, 10, 0), OLD, 10, None),
        (KEY.rotated(NEW, 10, 20).rotated(digest_of("newest"), 11, 20), OLD, 12, None),
        (KEY.taken_back(50), OLD, 49.9, 50),
        (KEY.taken_back(50), OLD, 50, None),
        (KEY.taken_back(50).taken_back(70), OLD, 50, None),
        (KEY.rotated(NEW, 10, 80).taken_back(50), OLD, 60, None),
    ],
)
def test_until_when_a_secret_is_good(key: ApiKey, digest: str, now: float, until: float | None) -> None:
    assert key.good_until(digest, now) == until


def test_a_key_is_read_back_from_its_text_and_from_nothing_else() -> None:
    secret, id_ = new_secret(), new_id(1.5)
    text = text_of(id_, secret)
    assert parts_of(text) == (id_, secret)
    assert re.fullmatch(r"0000000005dc[0-9a-f]{12}", id_)
    for wrong in ("", "fsk_", text[:-1], text + "A", " " + text, text + "\n", text.replace("fsk", "fsK"), text.replace("_", "-")):
        assert parts_of(wrong) is None


def test_ids_sort_by_when_they_were_made() -> None:
    ids = [new_id(at) for at in (0.0, 1.0, 999.999, 1e9, 2e9)]
    assert ids == sorted(ids)


def maker(*roles: str, tenant: str = "acme", scopes: tuple[str, ...] = ()) -> Principal:
    return Principal("somebody", tenant, frozenset(roles), frozenset(scopes))


@pytest.mark.parametrize(
    ("who", "tenant", "roles", "scopes", "said"),
    [
        (maker("scorer"), "acme", {"scorer"}, set(), None),
        (maker("scorer", "viewer"), "acme", {"scorer"}, {"predict"}, None),
        (maker("admin"), "acme", {"viewer", "scorer", "trainer", "releaser", "monitor", "admin"}, set(), None),
        (maker("admin", tenant="local"), "acme", {"admin"}, set(), None),
        (maker("admin", scopes=("predict", "score")), "acme", {"scorer"}, {"predict"}, None),
        (maker("scorer"), "acme", {"admin"}, set(), "the role admin"),
        (maker("trainer"), "acme", {"releaser"}, set(), "the role releaser"),
        (maker("admin"), "local", {"viewer"}, set(), "the tenant local"),
        (maker("admin", tenant="Local"), "acme", {"viewer"}, set(), "the tenant acme"),
        (maker("admin", scopes=("predict",)), "acme", {"scorer"}, set(), "every scope"),
        (maker("admin", scopes=("predict",)), "acme", {"scorer"}, {"predict", "score"}, "the scope score"),
        (maker("admin", scopes=("jobs.*",)), "acme", {"trainer"}, {"jobs.create.*", "jobs.read"}, None),
        (maker("admin", scopes=("jobs.create.*",)), "acme", {"trainer"}, {"jobs.create.train", "jobs.create.*"}, None),
        (maker("admin", scopes=("jobs.create.*",)), "acme", {"trainer"}, {"jobs.*"}, "the scope jobs.*"),
        (maker("admin", scopes=("jobs.create.train",)), "acme", {"trainer"}, {"jobs.create.*"}, "the scope jobs.create.*"),
        (maker(), "acme", {"viewer"}, set(), "the role viewer"),
    ],
)
def test_what_a_maker_can_not_give(who: Principal, tenant: str, roles: set[str], scopes: set[str], said: str | None) -> None:
    found = excess(who, tenant, frozenset(roles), frozenset(scopes))
    assert found is None if said is None else found is not None and found.startswith(said)
