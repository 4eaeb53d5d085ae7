"""Places for what takes long."""

from contextlib import ExitStack

import pytest

from finsight.service.problems import Problem
from finsight.service.slots import Slots


def test_one_tenant_has_half_of_the_places_and_all_have_no_more_than_there_are() -> None:
    slots = Slots(4)
    with ExitStack() as held:
        for tenant in ("acme", "acme"):
            held.enter_context(slots.one(tenant))
        with pytest.raises(Problem, match="no more than 2 of these at once for one tenant") as refused, slots.one("acme"):
            pass
        assert refused.value.status_code == 429
        assert refused.value.headers == {"Retry-After": "5"}
        for tenant in ("other", ""):
            held.enter_context(slots.one(tenant))
        for tenant in ("acme", "third", ""):
            with pytest.raises(Problem, match="as may be at once") as full, slots.one(tenant):
                pass
            assert full.value.status_code == 503
    for _ in range(3):
        with slots.one("acme"), slots.one("acme"), slots.one(), slots.one():
            pass
    assert not slots._taken
