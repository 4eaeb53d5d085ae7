"""A champion that changes while requests come in: real bundles, a real registry, real services."""

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from champions import CHAMPION, Asking, register
from conftest import Project
from finsight.bundle import bundle_digest
from finsight.errors import ArtifactError, UnreachableError
from finsight.pipeline.predict import Model
from finsight.ports import ModelVersion
from finsight.service.following import Follower
from finsight.service.meters import Meters
from finsight.service.predictions import Predictions, Served
from serving import KEY, metric, serving


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")  # MLflow's own
@pytest.mark.long
def test_a_swap_under_load_fails_no_request_and_a_bad_champion_is_refused(
    finished: Project, copy_of: Callable[[Project], Project], capfd: pytest.CaptureFixture[str]
) -> None:
    project = copy_of(finished)
    options = {**project.env, "FINSIGHT_FOLLOW_SECONDS": "0.3"}
    first = bundle_digest(project.root / "models/bundle")
    with (
        serving(project.root, "--bundle", CHAMPION, **options) as (client, process),
        serving(project.root, "--bundle", CHAMPION, **options, FINSIGHT_REQUIRE_SIGNATURE="any") as (strict, _),
    ):
        assert client.get("/readyz").json() == {"status": "ready", "bundle": first, "version": 1}
        rows = project.json("prepare.json")["splits"]["train"]["rows"]
        assert metric(client, "finsight_training_rows") == rows  # of the registry: the reports of the run that made it
        with Asking(client.base_url) as asking:
            until(lambda: len(asking.answers) > 20)
            second = register(project, 3.0)
            until(lambda: asking.answers[-1][1] == second)
            register(project, 4.0, damaged=True)
            until(lambda: metric(client, "finsight_model_swaps_total", outcome="refused") > 0)
            seen = len(asking.answers)
            time.sleep(1)  # three looks more at the version that was refused
            until(lambda: len(asking.answers) > seen + 20)
        assert {status for status, _ in asking.answers} == {200}
        assert {bundle for _, bundle in asking.answers} == {first, second}
        assert client.get("/readyz").json() == {"status": "ready", "bundle": second, "version": 2}
        assert metric(client, "finsight_model_swaps_total", outcome="refused") == 1
        assert metric(client, "finsight_model_swaps_total", outcome="swapped") == 1
        # The other asks for signatures, and what was signed was the first.
        assert metric(strict, "finsight_model_swaps_total", outcome="refused") >= 1
        assert strict.get("/readyz").json()["bundle"] == first
        process.terminate()
        client.close()
        assert process.wait(30) == 0
        assert process.stderr is not None
        log = process.stderr.read().decode()
    assert log.count("is refused") == 1, log
    assert KEY not in log


class Nothing:
    labels = ("a", "b")


def served(digest: str) -> Served:
    return Served(Model(Nothing(), {}, None), digest)  # type: ignore[arg-type]


def follow(looks: int, newest: Callable[[], ModelVersion], load: Callable[[ModelVersion], Served]) -> tuple[Predictions, Meters]:
    meters = Meters()
    predictions = Predictions(served("one"), meters)

    async def scenario() -> None:
        follower = Follower(predictions, meters, newest, load, every=3600)
        async with predictions.running():
            for _ in range(looks):
                await follower.look()

    asyncio.run(scenario())
    return predictions, meters


def test_what_was_refused_is_looked_at_again_once_the_registry_says_something_else_of_it() -> None:
    loads: list[ModelVersion] = []
    versions = [ModelVersion(2, "two", "run", frozenset()), ModelVersion(2, "two", "run", frozenset(), {"signature": "new"})]

    def load(version: ModelVersion) -> Served:
        loads.append(version)
        if not version.tags:
            raise ArtifactError("damaged")
        return served(version.bundle_digest)

    said = [versions[0]] * 3 + [versions[1]] * 3
    predictions, _ = follow(6, lambda: said.pop(0), load)
    assert loads == versions
    assert predictions.served.digest == "two"


def test_a_registry_that_does_not_answer_changes_nothing_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    def newest() -> ModelVersion:
        raise UnreachableError("no answer")

    predictions, meters = follow(5, newest, lambda version: served("two"))
    assert predictions.served.digest == "one"
    assert len(caplog.records) == 1
    assert meters.registry.get_sample_value("finsight_model_swaps_total", {"outcome": "refused"}) == 0


def test_a_follower_that_is_told_looks_at_once_and_survives_what_nobody_foresaw(caplog: pytest.LogCaptureFixture) -> None:
    meters = Meters()
    predictions = Predictions(served("one"), meters)
    failures = [ZeroDivisionError("?")]

    def newest() -> ModelVersion:
        if failures:
            raise failures.pop()
        return ModelVersion(2, "two", "run", frozenset())

    async def scenario() -> None:
        follower = Follower(predictions, meters, newest, lambda version: served("two"), every=3600)
        async with asyncio.timeout(10), predictions.running(), follower.running():
            while predictions.served.digest == "one":
                threading.Thread(target=follower.look_now).start()
                await asyncio.sleep(0.02)

    asyncio.run(scenario())
    assert "could not be looked at" in caplog.text


def test_following_needs_an_alias() -> None:
    from finsight.bootstrap.service import follows

    assert follows(Path(CHAMPION))
    assert not follows(Path("models:/finsight/3"))
    assert not follows(Path("models/bundle@home"))
