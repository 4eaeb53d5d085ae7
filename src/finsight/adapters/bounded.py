"""Calls that may hang, made so that nobody has to wait for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def begun(call: Callable[[], T]) -> Future[T]:
    """What a call is going to answer. It is made in a thread of its own, which the end of the process does not wait for either."""
    answer: Future[T] = Future()

    def made() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001  (whoever asks for the answer gets it)
            answer.set_exception(error)

    threading.Thread(target=made, daemon=True).start()
    return answer
