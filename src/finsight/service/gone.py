"""Clients that don't wait for their answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

T = TypeVar("T")

CLIENT_GONE = 499  # nobody sees it but the metrics; nginx has it so
PATIENCE = 0.1  # seconds after which it is worth finding out whether anybody still waits


class GoneError(Exception):
    """Nobody waits for the answer any more."""


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` returns; it is cancelled when the client goes away first.

    :param request: its body has been read.
    :raises GoneError: when it has gone.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=PATIENCE)
        if not done:
            gone = asyncio.ensure_future(request.receive())  # after the body the only message is http.disconnect
            try:
                await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                gone.cancel()
        if not task.done():
            raise GoneError
        return task.result()
    finally:
        task.cancel()
