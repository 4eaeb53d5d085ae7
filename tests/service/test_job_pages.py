"""Jobs on the page in a real Chromium, with its script and without, over a live Redis; the test is the worker."""

import re
import subprocess
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from apps import Badges, predicting, rules, served
from browsers import CHECK
from conftest import shipped_params, starter_rows, write_csv
from finsight.adapters.jobs import RepositoryJobs
from finsight.adapters.redis_queue import RedisQueue
from finsight.adapters.redis_sessions import RedisSessions
from finsight.domain.jobs import Kind, Limits, Order
from finsight.errors import UnreachableError
from finsight.service.app import create_app
from finsight.service.job_pages import typed
from finsight.service.jobs import Jobs
from finsight.service.parts import Parts
from finsight.service.problems import Problem
from finsight.service_ports import Ending, Lease, Outcome, Word

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]
ANN = "ann:acme:trainer"
SOON = 15_000  # milliseconds; the script looks every 2 s


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which orders can be taken."""
    root = tmp_path_factory.mktemp("clone")
    (root / "params.yaml").write_text(shipped_params())
    write_csv(root / "data/starter/rows.csv", starter_rows(20))
    for command in ("init -q -b main", "config user.name t", "config user.email t@example.org", "add -A", "commit -qm first"):
        subprocess.run(["git", *command.split()], cwd=root, check=True)
    return root


@pytest.fixture(scope="module")
def service(repository: Path, redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    jobs = Jobs(RedisQueue(redis_server), RepositoryJobs(repository, repository / ".service").order, Limits(1000, 3))
    parts = Parts(
        gate=Badges(),
        rules=rules("*=100000/second"),
        own=None,  # type: ignore[arg-type] # nobody here has a key
        jobs=jobs,
        sessions=RedisSessions(redis_server),
        **predicting(),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db")
        with served(create_app(parts)) as client:
            yield client


@pytest.fixture
def queue(redis_url: str) -> Iterator[RedisQueue]:
    opened = RedisQueue(redis_url)
    yield opened
    opened.close()


class Working:
    """A worker in the hands of a test."""

    def __init__(self, queue: RedisQueue) -> None:
        self._queue, self._said = queue, 0
        lease = queue.take("a worker")
        assert lease is not None
        self.lease: Lease = lease

    def tell(self, *events: dict[str, Any]) -> Word:
        self._said += 1
        return self._queue.tell(self.lease, self._said, events)

    def step(self, step: int, line: str = "") -> Word:
        said = [{"type": "progress", "step": step, "steps": 20}, *([{"type": "log", "line": line}] if line else [])]
        return self.tell(*said)


def ordered(queue: RedisQueue, tenant: str = "acme", owner: str = "ann", **parameters: Any) -> str:
    return queue.submit(Order(Kind.TRAIN, parameters, tenant, owner))[0].id


def opened(browser: Browser, service: httpx.Client, key: str = ANN, **how: Any) -> Page:
    page = browser.new_context(base_url=str(service.base_url), viewport={"width": 1100, "height": 900}, **how).new_page()
    page.set_default_timeout(60_000)
    page.goto("/")
    page.get_by_label("Key of this service").fill(key)
    page.get_by_role("button", name="Sign in").click()
    return page


@pytest.fixture(params=["light", "dark"])
def plain(request: pytest.FixtureRequest, browser: Browser, service: httpx.Client) -> Iterator[Page]:
    """A browser without scripts."""
    page = opened(browser, service, java_script_enabled=False, color_scheme=request.param)
    yield page
    page.context.close()


@pytest.fixture
def live(browser: Browser, service: httpx.Client) -> Iterator[Page]:
    """A browser with scripts; none may fail or be refused."""
    page, complaints = opened(browser, service), list[str]()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    yield page
    page.context.close()
    assert [text for text in complaints if "status of 401" not in text and "ERR_INTERNET_DISCONNECTED" not in text] == []


def test_a_job_is_begun_followed_and_cancelled_without_a_script(queue: RedisQueue, plain: Page) -> None:
    assert plain.get_by_text("There is no job yet.").is_visible()
    plain.get_by_label("Up to which stage, or what").select_option("train")
    plain.get_by_label("Parameters other than in params.yaml").fill("train.lr=2e-5\n\ningest.corpora=[starter]\n")
    plain.get_by_role("button", name="Start").press("Enter")
    assert plain.get_by_role("status").first.inner_text() == "The job is queued."
    assert plain.get_by_text("It waits for a worker.").is_visible()
    assert plain.evaluate(CHECK) == []
    (job,), _ = queue.jobs("acme")
    assert (job.order.parameters, job.order.owner) == ({"train.lr": 2e-5, "ingest.corpora": ["starter"]}, "ann")
    work = Working(queue)
    work.tell({"type": "stage", "stage": "train"}, {"type": "metrics", "metrics": {"validation_macro_f1": 0.8125}})
    work.step(5, "epoch <b>1</b> of 4")
    plain.get_by_role("link", name="Refresh").click()
    bar = plain.get_by_label("Progress of train: 25 %")
    assert bar.get_attribute("value") == "0.25"
    assert plain.get_by_role("region", name="Last lines of its log").inner_text().strip() == "epoch <b>1</b> of 4"
    assert "0.812" in plain.inner_text("main")
    assert plain.evaluate(CHECK) == []
    plain.get_by_role("link", name="All jobs").click()
    row = plain.get_by_role("row", name=re.compile(f"train {job.id[:8]}"))
    assert "running" in row.inner_text()
    assert row.get_by_label("train", exact=True).get_attribute("value") == "0.25"
    assert "1 job runs, 0 wait." in plain.inner_text("main")
    assert plain.evaluate(CHECK) == []
    plain.set_viewport_size({"width": 320, "height": 640})
    assert plain.evaluate(CHECK) == []
    row.get_by_role("link").click()
    assert plain.evaluate(CHECK) == []
    plain.get_by_role("button", name="Cancel the job").press("Enter")
    assert plain.get_by_role("status").first.inner_text() == "The job is being cancelled."
    assert "It is being cancelled." in plain.inner_text("main")
    assert plain.get_by_role("button", name="Cancel the job").count() == 0
    assert work.step(6) == Word.CANCEL
    queue.end(work.lease, Outcome(Ending.CANCELLED))
    plain.get_by_role("link", name="Refresh").click()
    assert plain.locator(".state").inner_text() == "cancelled"
    assert plain.evaluate(CHECK) == []


def test_a_job_goes_on_before_ones_eyes(queue: RedisQueue, live: Page) -> None:
    job = ordered(queue)
    live.reload()
    row = live.get_by_role("row", name=re.compile(f"train {job[:8]}"))
    expect(row.locator(".state")).to_have_text("queued")
    live.get_by_label("A headline, or a few sentences").fill("half a sent")
    row.get_by_role("link").focus()
    work = Working(queue)
    work.tell({"type": "stage", "stage": "train"})
    expect(row.locator(".state")).to_have_text("running", timeout=SOON)
    for step in (5, 10):
        work.step(step)
        expect(row.locator("progress")).to_have_attribute("value", f"{step / 20:.2f}", timeout=SOON)
    assert live.evaluate("document.activeElement.id") == f"link-{job}"  # what one does meanwhile is left alone
    assert live.get_by_label("A headline, or a few sentences").input_value() == "half a sent"
    live.keyboard.press("Enter")
    status = live.get_by_role("status")
    expect(status).to_contain_text("train, 50 % done")
    said = status.evaluate(
        "node => { window.said = []; new MutationObserver(() => said.push(1)).observe(node, "
        "{subtree: true, childList: true, characterData: true}); }"
    )
    work.step(11, "line 1")
    expect(live.locator("progress")).to_have_attribute("value", "0.55", timeout=SOON)
    assert live.evaluate("said") == [], said  # a screen reader hears tens of percent
    work.tell(*({"type": "log", "line": f"line {i}"} for i in range(2, 90)))
    log = live.get_by_role("region", name="Last lines of its log")
    expect(log).to_contain_text("line 89", timeout=SOON)
    assert log.evaluate("node => node.scrollHeight - node.scrollTop - node.clientHeight") < 8
    assert "line 29\n" not in log.inner_text()  # sixty
    live.get_by_role("button", name="Cancel the job").focus()
    queue.end(work.lease, Outcome(Ending.FAILED, "the corpus has no rows; <i>add</i> some"))
    expect(live.get_by_text("the corpus has no rows; <i>add</i> some")).to_be_visible(timeout=SOON)
    expect(live.locator(".state")).to_have_text("failed")
    assert live.get_by_role("button", name="Cancel the job").count() == 0
    assert live.evaluate("document.activeElement.id") == "job"  # where the button was is nothing now
    asked = list[str]()
    live.on("request", lambda request: asked.append(request.url))
    time.sleep(5)
    assert asked == []  # nothing more will happen to it


def test_a_service_that_is_away_or_knows_one_no_more_is_borne(queue: RedisQueue, live: Page) -> None:
    job = ordered(queue)
    live.goto(f"/jobs/{job}")
    work = Working(queue)
    live.context.set_offline(True)
    with live.expect_event("requestfailed", timeout=SOON):
        pass
    live.context.set_offline(False)
    work.tell({"type": "stage", "stage": "train"})
    expect(live.locator(".state")).to_have_text("running", timeout=2 * SOON)
    live.context.clear_cookies()
    expect(live.get_by_role("status")).to_have_text("your session is over; sign in again.", timeout=SOON)


def test_only_what_is_ones_own_and_allowed_is_shown(queue: RedisQueue, browser: Browser, service: httpx.Client) -> None:
    ours, theirs = ordered(queue), ordered(queue, "elsewhere", "eve", x=1)
    page = opened(browser, service, "vic:acme:viewer", java_script_enabled=False)
    assert ours[:8] in page.inner_text("main")
    assert theirs[:8] not in page.inner_text("main")
    assert page.get_by_role("button", name="Start").count() == 0
    page.get_by_role("link", name=re.compile(ours[:8])).click()
    assert page.get_by_role("button", name="Cancel the job").count() == 0
    page.goto(f"/jobs/{theirs}")
    assert page.get_by_role("alert").inner_text() == f"there is no job {theirs}"
    page.goto("/jobs/../etc/passwd")
    assert page.goto("/jobs/nothing").status == 422  # type: ignore[union-attr]
    assert page.get_by_role("alert").inner_text().startswith("path.job: String should match pattern")
    page.context.close()


class Sent:
    """Somebody's session, without a browser."""

    def __init__(self, service: httpx.Client, key: str) -> None:
        self.http = httpx.Client(base_url=service.base_url, timeout=60)
        assert self.http.post("/session", data={"key": key}).status_code == 303
        found = re.search(r'name="csrf" value="([^"]+)"', self.http.get("/").text)
        assert found is not None
        self.token = found[1]

    def post(self, path: str, **form: str) -> httpx.Response:
        return self.http.post(path, data={**form, "csrf": self.token})

    def refused(self, path: str, **form: str) -> tuple[int, str]:
        answer = self.post(path, **form)
        (said,) = re.findall(r'role="alert">([^<]*)<', answer.text)
        return answer.status_code, unescape(said)


@pytest.fixture
def ann(service: httpx.Client) -> Iterator[Sent]:
    found = Sent(service, ANN)
    yield found
    found.http.close()


@pytest.mark.parametrize(
    ("kind", "parameters", "says"),
    [
        ("train", "train.rl=1.0", "train.rl: unknown key; allowed: "),
        ("train", "train.lr=-1.0", "train.lr: got -1.0; "),
        ("validate", "train.lr=1.0", "train.lr: can't be set for validate; allowed: ingest.corpora, validate"),
        ("train", "train.lr", "parameters, line 1: got 'train.lr', expected key=value, such as train.lr=2e-5"),
        ("train", "train.seed=1\ntrain.seed=2", "parameters, line 2: train.seed comes twice"),
        ("nothing", "", "kind: Input should be 'validate', 'train'"),
        ("score", "input=../../etc/passwd", "input: expected the id of an object that was uploaded"),
    ],
)
def test_a_form_is_refused_in_the_words_of_rest_and_keeps_what_was_typed(
    queue: RedisQueue, ann: Sent, kind: str, parameters: str, says: str
) -> None:
    answer = ann.post("/jobs", kind=kind, parameters=parameters)
    (said,) = re.findall(r'role="alert">([^<]*)<', answer.text)
    assert answer.status_code == 422
    assert unescape(said).startswith(says)
    assert f">{parameters}</textarea>" in unescape(answer.text)
    assert queue.jobs("acme") == ([], 0)
    try:
        body = {"kind": kind, "parameters": typed(parameters)}
    except Problem:
        return
    detail = ann.http.post("/v1/jobs", json=body, headers={"X-API-Key": ANN}).json()["detail"]
    assert unescape(said) == detail.removeprefix("body.")


def test_the_same_order_is_the_same_job_and_limits_hold(queue: RedisQueue, ann: Sent) -> None:
    first = ann.post("/jobs", kind="evaluate").headers["Location"]
    assert re.fullmatch(r"/jobs/[0-9a-f]{32}\?said=new", first)
    assert ann.post("/jobs", kind="evaluate").headers["Location"] == first.replace("new", "there")
    assert "The same order is this job already." in ann.http.get(first.replace("new", "there")).text
    for seed in (1, 2):
        ann.post("/jobs", kind="train", parameters=f"train.seed={seed}")
    answer = ann.post("/jobs", kind="train")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "60")
    assert ann.refused("/jobs", kind="train")[1] == "3 jobs of acme wait or run already; cancel one, or wait for one to end"
    assert "<option selected>train</option>" in answer.text


def test_a_change_that_is_not_committed_is_said(queue: RedisQueue, ann: Sent, repository: Path) -> None:
    before = (repository / "params.yaml").read_text()
    try:
        (repository / "params.yaml").write_text(before + "# changed\n")
        assert ann.refused("/jobs", kind="train") == (
            409,
            "params.yaml: changed and not committed; commit first, so that the result says what it came from",
        )
    finally:
        (repository / "params.yaml").write_text(before)


@pytest.mark.parametrize(
    ("role", "begins", "cancels_own", "cancels_others"),
    [
        ("viewer", 403, 403, 403),
        ("scorer", 403, 303, 403),
        ("trainer", 303, 303, 303),
        ("releaser", 403, 403, 403),
        ("admin", 303, 303, 303),
    ],
)
def test_each_role_may_what_it_may_over_rest(
    queue: RedisQueue, service: httpx.Client, role: str, begins: int, cancels_own: int, cancels_others: int
) -> None:
    zoe = Sent(service, f"zoe:acme:{role}")
    mine, anothers, elsewhere = ordered(queue, owner="zoe"), ordered(queue, x=1), ordered(queue, "elsewhere", "zoe")
    assert [f"/jobs/{job}/cancel" in zoe.http.get(f"/jobs/{job}").text for job in (mine, anothers)] == [
        cancels_own == 303,
        cancels_others == 303,
    ]
    assert zoe.post(f"/jobs/{mine}/cancel").status_code == cancels_own
    assert zoe.post(f"/jobs/{anothers}/cancel").status_code == cancels_others
    assert zoe.post(f"/jobs/{elsewhere}/cancel").status_code in (403, 404)
    assert zoe.http.get(f"/jobs/{elsewhere}").status_code == 404
    assert zoe.http.get(f"/live/jobs/{elsewhere}").status_code == 404
    assert zoe.http.get("/live/jobs").status_code == 200
    assert zoe.post("/jobs", kind="train").status_code == begins
    assert queue.get(elsewhere).state == "queued"  # type: ignore[union-attr]
    zoe.http.close()


def test_a_list_that_is_not_to_be_had_for_a_while_is_asked_for_again(ann: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise UnreachableError("Redis does not do what is asked")

    monkeypatch.setattr(RedisQueue, "jobs", away)
    assert "data-under-way>Redis does not do what is asked<" in ann.http.get("/live/jobs").text


def test_what_it_says_of_a_log_without_a_line_lately_is_true(queue: RedisQueue, ann: Sent) -> None:
    job = ordered(queue)
    work = Working(queue)
    assert "It has said nothing yet." in ann.http.get(f"/jobs/{job}").text
    work.tell({"type": "log", "line": "long ago"}, *({"type": "progress", "step": n, "steps": 2000, "loss": 0.5} for n in range(1000)))
    assert "It has said nothing for a while." in ann.http.get(f"/jobs/{job}").text


def test_older_jobs_are_a_link_away(queue: RedisQueue, ann: Sent) -> None:
    made = [ordered(queue, seed=i) for i in range(13)]
    page = ann.http.get("/").text
    (older,) = re.findall(r'href="(/\?cursor=\d+)">Older', page)
    rest = ann.http.get(older).text
    assert [job for job in made if f"link-{job}" in page] == made[3:]
    assert [job for job in made if f"link-{job}" in rest] == made[:3]
    assert ann.http.get("/?cursor=x").status_code == 422
    assert "There are no older jobs." in ann.http.get("/?cursor=1").text


def test_pieces_are_for_who_has_signed_in(queue: RedisQueue, service: httpx.Client) -> None:
    job = ordered(queue)
    for path in ("/live/jobs", f"/live/jobs/{job}"):
        answer = httpx.get(service.base_url.join(path))
        assert (answer.status_code, answer.headers["Content-Type"]) == (401, "application/problem+json")
    assert httpx.get(service.base_url.join(f"/jobs/{job}")).headers["Location"] == "/"
    script = httpx.get(service.base_url.join("/static/live.js"))
    assert script.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert "script-src 'self'" in httpx.get(service.base_url).headers["Content-Security-Policy"]


def test_parameters_are_read_as_params_yaml_has_them() -> None:
    text = """
    # a remark
    train.lr = 2e-5
    train.soft_labels=true
    train.dropout = null
    train.seed=12
    validate.language="12"
    a.b=yes
    ingest.corpora=[starter , "a, b" , 7 , "x"y, "z]
    c.d=[]
    e.f=a=b
    g.h=[[[[
    i.j=NaN
    """
    assert typed(text) == {
        "train.lr": 2e-5,
        "train.soft_labels": True,
        "train.dropout": None,
        "train.seed": 12,
        "validate.language": "12",
        "a.b": "yes",
        "ingest.corpora": ["starter", "a, b", 7, '"x"y', '"z'],
        "c.d": [],
        "e.f": "a=b",
        "g.h": "[[[[",
        "i.j": "NaN",
    }
    assert typed("a.b=" + "[" * 5000 + "]" * 5000) == {"a.b": ["[" * 4999 + "]" * 4999]}


def test_a_list_is_read_in_no_time_whatever_it_looks_like() -> None:
    for item in (" " * 9000 + '"y', '"' * 9000, '"\\"' * 3000, '",' * 4000 + "x", '"\\",' * 2000 + '"', " ," * 4000):
        began = time.process_time()
        typed(f"a.b=[x{item}]")
        typed(f"a.b=[{item}]")
        assert time.process_time() - began < 2
