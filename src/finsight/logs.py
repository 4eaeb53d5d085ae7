"""Logs of services: a line of JSON each, or readable in a terminal, with the correlation id and without texts and secrets."""

from __future__ import annotations

import logging
import re
import sys
import threading
from typing import Any

from finsight import redaction, tracing
from finsight.settings import Settings

_OURS = "finsight"
# What moves a terminal's cursor, colours or direction of writing, or begins a line; two characters of it may be a command. Within a
# traceback lines and tabs stay.
_MOVING = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def begin(service: str, settings: Settings) -> None:
    """Have all that is logged in this process from now on written to standard error, and what ends it or a thread of it unforeseen.

    Of others' loggers warnings and errors are; of ours what FINSIGHT_LOG_LEVEL says.

    :param service: its name in each line.
    """
    import structlog

    terminal = settings.log_format == "text" or (settings.log_format == "auto" and sys.stderr.isatty())
    stamp = structlog.processors.TimeStamper(fmt="%H:%M:%S" if terminal else "iso", utc=not terminal, key="time")
    known: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        stamp,
        _Identified(service),
    ]
    if terminal:
        ends: list[Any] = [_shown, structlog.dev.ConsoleRenderer(timestamp_key="time", pad_event_to=0, colors=sys.stderr.isatty())]
    else:
        ends = [structlog.processors.JSONRenderer(ensure_ascii=False)]
    remove: Any = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    redacted: Any = _redacted
    handler = logging.StreamHandler()
    # Redaction is last before rendering: whatever was added is looked at.
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=known, processors=[remove, redacted, *ends]))
    root, ours = logging.getLogger(), logging.getLogger(_OURS)
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    ours.setLevel(settings.log_level.upper())
    sys.excepthook = lambda _kind, error, _trace: _ended(error)
    threading.excepthook = lambda about: _ended(about.exc_value)


def _ended(error: BaseException | None) -> None:
    """Python itself would write an error with its words, whatever they repeat."""
    if not isinstance(error, (KeyboardInterrupt, SystemExit)):
        logging.getLogger(_OURS).critical("ended by what nobody foresaw", exc_info=error)


class _Identified:
    """Says which service it is, and what it is doing: the correlation id, and the trace where there is one."""

    def __init__(self, service: str) -> None:
        self._service = service

    def __call__(self, _logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        correlation = tracing.CORRELATION.get()
        return {**event, "service": self._service, **({"correlation_id": correlation} if correlation else {}), **tracing.ids()}


def _shown(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """For a terminal, which would do what is written to it; a line of JSON is for programs."""
    return {name: _still(value, "\n\t" if name == "exception" else "") for name, value in event.items()}


def _still(value: Any, kept: str) -> Any:
    if not isinstance(value, str):  # shown as Python writes it, escaped
        return value
    return _MOVING.sub(lambda found: found[0] if found[0] in kept else found[0].encode("unicode_escape").decode(), value)


def _redacted(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    raised = event.pop("exc_info", None)
    if raised and event.get("logger") == "asyncio":  # further lines repeat the words of the error
        event["event"] = str(event["event"]).partition("\n")[0]
    shown = {name: redaction.field(name, value) for name, value in event.items()}
    if raised is True:
        raised = sys.exc_info()
    error = raised[1] if isinstance(raised, tuple) else raised
    return {**shown, "exception": redaction.frames(error)} if isinstance(error, BaseException) else shown
