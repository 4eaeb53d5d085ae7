"""What services log: by lines of JSON, with the correlation id, and without what is nobody's business."""

import gc
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apps import app_with, served
from finsight import logs, redaction, tracing
from finsight.errors import ParamsError
from finsight.settings import Settings

LOG = logging.getLogger("finsight.service")
TEXT = "the text of a client"


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Log as a service does; what it has written."""
    root, ours = logging.getLogger(), logging.getLogger("finsight")
    before = root.handlers, root.level, ours.level

    def begin(**settings: Any) -> Any:
        logs.begin("finsight-api", Settings(**settings))
        return lambda: [json.loads(line) for line in capfd.readouterr().err.splitlines()]

    yield begin
    root.handlers = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def test_a_line_of_a_request_has_its_correlation_id(lines: Any) -> None:
    said = lines(log_level="debug")
    app = app_with()

    def broken() -> None:  # in a thread
        LOG.warning("about to break")
        raise RuntimeError(TEXT)

    app.add_api_route("/broken", broken)
    with served(app) as client:
        client.get("/broken?ticket=s3cret", headers={"X-Request-ID": "mine-0001"})
        client.get("/livez", headers={"X-Request-ID": "mine-0002"})
    found = [line for line in said() if line["logger"] == "finsight.service"]
    assert [(line["level"], line["correlation_id"]) for line in found] == [
        ("warning", "mine-0001"),
        ("error", "mine-0001"),
        ("debug", "mine-0001"),
        ("debug", "mine-0002"),
    ]
    assert {line["service"] for line in found} == {"finsight-api"}
    assert found[0]["time"].endswith("Z")
    assert "RuntimeError: [hidden]" in found[1]["exception"]
    assert "in broken" in found[1]["exception"]
    assert found[3] | {"seconds": 0} == found[3] | {"route": "/livez", "method": "GET", "status": 200, "path": "/livez", "seconds": 0}
    assert TEXT not in str(found)
    assert "s3cret" not in str(found)


def test_by_default_requests_are_no_lines(lines: Any) -> None:
    said = lines()
    with served(app_with()) as client:
        client.get("/v1/me")
    assert said() == []


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("asked redis://admin:hunter22@host/0 again", "asked redis://[hidden]@host/0 again"),
        (f"key fsk_{'a' * 24}_{'b' * 43} ended", "key [hidden] ended"),
        ("Authorization: Bearer abcdefgh.ijkl", "Authorization: Bearer [hidden]"),
        ("token eyJhbGciOi.eyJzdWIi.c2ln", "token [hidden]"),
        ("AKIAIOSFODNN7EXAMPLE", "[hidden]"),
        ("AGE-SECRET-KEY-1QQQQQQQQ", "[hidden]"),
        ("GET /x?X-Amz-Signature=abc&y=1", "GET /x?[hidden]&y=1"),
        ("-----BEGIN PRIVATE KEY-----\nMC4C\n-----END PRIVATE KEY-----", "[hidden]"),
        ("asked redis://admin:p@ss@host/0?a=b@c", "asked redis://[hidden]@host/0?a=b@c"),
        ("BEARER  abcdefgh.ijkl", "BEARER [hidden]"),
        ("next=%2Fx%3Fticket%3Dabcdef HTTP/1.1", "next=%2Fx%3F[hidden] HTTP/1.1"),
        ("Authorization%3A%20Bearer%20abcdefgh.ijkl", "Authorization%3A%20Bearer%20[hidden]"),
        ("POST /token?a=1&client_secret=abc&refresh_token=d", "POST /token?a=1&[hidden]&[hidden]"),
        ("nothing secret: models:/finsight@champion", "nothing secret: models:/finsight@champion"),
    ],
)
def test_secrets_are_known_by_their_form(said: str, shown: str) -> None:
    assert redaction.scrubbed(said) == shown


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Variables whose secrets are known within the test."""
    redaction._secrets.cache_clear()
    yield monkeypatch
    redaction._secrets.cache_clear()


def test_secrets_of_variables_and_their_files_are_known_by_their_value(held: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("key-of-a-file\n")
    held.setenv("FINSIGHT_API_KEY_FILE", str(tmp_path / "key"))
    held.setenv("FINSIGHT_OIDC_CLIENT_SECRET_FILE", str(tmp_path / "not-there"))
    held.setenv("SMTP_PASSWORD", "pass/word")
    held.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-one=first-one,x-two:second-one")
    said = f"key-of-a-file in {tmp_path}/key, pass/word, pass%2Fword, first-one, second-one"
    assert redaction.scrubbed(said) == f"[hidden] in {tmp_path}/key, [hidden], [hidden], [hidden], [hidden]"


@pytest.mark.parametrize("piece", ["eyJ", "eyJa.", "Bearer ", "://a", "-----BEGIN PRIVATE KEY-----", "?token", "%3Fcode", "fsk_", "key "])
def test_a_long_text_is_looked_through_at_once(piece: str) -> None:
    began = time.process_time()
    redaction.scrubbed(piece * (200_000 // len(piece)))
    assert time.process_time() - began < 2


def test_errors_that_lead_to_each_other_are_told_once() -> None:
    first, second = ParamsError("first"), ParamsError("second")
    first.__cause__, second.__cause__ = second, first
    assert redaction.frames(first).count("ParamsError: ") == 2


def test_fields_are_hidden_by_their_name() -> None:
    given = {
        "api_key": "x",
        "X-API-Key": "x",
        "accessToken": "x",
        "texts": ["a"],
        "status": 200,
        "nested": {"password": "p", "url": "http://a:b@c"},
        "keys": 3,
        "path": Path("a"),
    }
    shown = redaction.field("", given)
    hidden = redaction.HIDDEN
    assert shown == {
        "api_key": hidden,
        "X-API-Key": hidden,
        "accessToken": hidden,
        "texts": hidden,
        "status": 200,
        "nested": {"password": hidden, "url": f"http://{hidden}@c"},
        "keys": 3,
        "path": "a",
    }


def test_an_errors_words_are_shown_where_they_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def raised(error: Exception) -> str:
        try:
            try:
                raise ValueError("what a client sent")
            except ValueError as cause:
                raise error from cause
        except type(error) as found:
            return redaction.frames(found)

    shown = raised(ParamsError("train.lr: got 3"))
    assert shown.endswith("ParamsError: train.lr: got 3")
    assert "ValueError: [hidden]" in shown
    monkeypatch.setenv("FINSIGHT_LOG_TEXTS", "true")
    assert "ValueError: what a client sent" in raised(RuntimeError("x"))


@pytest.mark.long
def test_a_service_writes_json_to_a_pipe_and_words_to_a_terminal_without_its_secrets() -> None:
    script = (
        "import logging, os; from finsight import logs, tracing; from finsight.settings import load_settings;"
        "logs.begin('finsight-worker', load_settings()); tracing.CORRELATION.set('mine-0001');"
        "logging.getLogger('finsight.worker').info('train abc, key %s', os.environ['FINSIGHT_API_KEY']);"
        "logging.getLogger('uvicorn.error').info('chatter'); logging.getLogger('other').warning('theirs', extra={'text': 'a text'})"
    )

    def said(**env: str) -> str:
        environment = {**os.environ, "FINSIGHT_API_KEY": "a-key-for-tests", **env}
        return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True).stderr

    first, second = [json.loads(line) for line in said().splitlines()]
    assert (first["event"], first["correlation_id"], first["level"]) == ("train abc, key [hidden]", "mine-0001", "info")
    assert (second["event"], second["text"]) == ("theirs", redaction.HIDDEN)
    words = said(FINSIGHT_LOG_FORMAT="text")
    assert "train abc, key [hidden]" in words.splitlines()[0]
    assert "mine-0001" in words
    assert "{" not in words
    assert [json.loads(line)["event"] for line in said(FINSIGHT_LOG_LEVEL="warning").splitlines()] == ["theirs"]


def test_what_a_terminal_would_do_is_shown_to_it_and_not_said(capfd: pytest.CaptureFixture[str], lines: Any) -> None:
    lines(log_format="text")
    sent = "a\x1b[2J\x9b31m\r\n12:00:00 [critical] forged\u202e"
    LOG.error(f"got {sent}", extra={"path": "b\x1b[3J"})
    try:
        raise ParamsError("a\x1bc")
    except ParamsError:
        LOG.exception("ended")
    said = capfd.readouterr().err
    assert not set(said) & {"\x1b", "\x9b", "\r", "\u202e"}
    assert r"got a\x1b[2J\x9b31m\r\n12:00:00 [critical] forged\u202e" in said
    assert r"path=b\x1b[3J" in said
    assert not [line for line in said.splitlines() if line.startswith("12:00:00 [critical]")]
    assert "\nTraceback (most recent call last):\n" in said
    assert r"ParamsError: a\x1bc" in said


def test_errors_of_a_group_are_each_told_without_their_words() -> None:
    def group() -> None:
        try:
            raise ValueError(TEXT)
        except ValueError as cause:
            raise ExceptionGroup(TEXT, [KeyError(TEXT), ExceptionGroup(TEXT, [ParamsError("ours"), OSError(1, "the system's")])]) from cause

    with pytest.raises(ExceptionGroup) as caught:
        group()
    said = redaction.frames(caught.value)
    assert TEXT not in said
    for shown in ("ValueError: [hidden]", "KeyError: [hidden]", "ParamsError: ours", "[Errno 1] the system's", "ExceptionGroup: [hidden]"):
        assert shown in said
    assert said.index("ValueError") < said.index("ExceptionGroup") < said.index("KeyError") < said.index("ParamsError")


def test_outside_of_a_request_there_is_no_correlation_id(lines: Any) -> None:
    said = lines()
    assert tracing.CORRELATION.get() == ""
    LOG.warning("by itself")
    (line,) = said()
    assert "correlation_id" not in line


def test_what_ends_a_thread_or_a_task_unforeseen_is_a_line_without_its_words(lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio
    import threading

    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    gc.collect()  # what other tests have left
    said = lines()

    async def fail() -> None:
        raise RuntimeError(TEXT)

    async def forget() -> None:  # as a task does that ends so, whenever it is collected
        told = {"message": "Task exception was never retrieved", "exception": RuntimeError(TEXT)}
        asyncio.get_running_loop().call_exception_handler(told)

    theirs = logging.getLogger("asyncio")  # which libraries that other tests use make quieter
    monkeypatch.setattr(theirs, "disabled", False)
    monkeypatch.setattr(theirs, "propagate", True)
    monkeypatch.setattr(logging.root.manager, "disable", 0)
    before = theirs.level
    theirs.setLevel(logging.NOTSET)
    asyncio.run(forget())
    theirs.setLevel(before)
    thread = threading.Thread(target=lambda: asyncio.run(fail()))
    thread.start()
    thread.join()
    sys.excepthook(RuntimeError, RuntimeError(TEXT), None)
    found = said()
    assert [line["event"] for line in found] == ["Task exception was never retrieved", *["ended by what nobody foresaw"] * 2]
    assert all(line["exception"].endswith("RuntimeError: [hidden]") for line in found)
    assert TEXT not in str(found)
