"""Predictions over a socket: texts come in, and predictions go out in the same order."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

from fastapi import APIRouter, WebSocket
from pydantic import BaseModel, Field, StringConstraints, ValidationError
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool

from finsight.domain.access import Principal
from finsight.service.access import may_open
from finsight.service.batching import FullError
from finsight.service.close_codes import Close, Closing
from finsight.service.open_socket import OpenSocket
from finsight.service.parts import Parts
from finsight.service.predict import PredictRequest, Text, answer
from finsight.service.problems import content, first_of
from finsight.service.schemas import RequestBody

ACTION = "predict"
router = APIRouter()

Name = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=64)] | Annotated[int, Field(strict=True, ge=0, lt=2**53)]
"""What a message is answered by."""


class Named(BaseModel):
    """What a message has to have, if it is to be answered at all."""

    id: Name


class Message(Named):
    """A text to label, and what to say of it; see :class:`~finsight.service.predict.PredictRequest`."""

    model_config = RequestBody.model_config  # what is true over REST is true here

    text: Text
    probabilities: bool = True
    explain: bool = False
    abstain: bool = False


@router.websocket("/ws/predict")
async def predict_stream(websocket: WebSocket, principal: Annotated[Principal, may_open(ACTION)]) -> None:
    """Label texts as they come."""
    parts: Parts = websocket.app.state.parts
    with parts.sockets.place(principal):
        socket = OpenSocket(websocket, parts.sockets, principal, ACTION)
        stream = _Stream(websocket, socket, f"{principal.tenant}/{principal.subject}")
        try:
            await socket.run(stream.read, stream.answer)
        finally:
            stream.drop()


class _Stream:
    """The messages of a socket that are not answered yet, in their order: when it is full, no more are read, and the peer has to wait.

    :param who: whose the messages are counted as.
    """

    def __init__(self, websocket: WebSocket, socket: OpenSocket, who: str) -> None:
        self._websocket, self._socket, self._who = websocket, socket, who
        self._parts: Parts = websocket.app.state.parts
        self._limits = self._parts.sockets.limits
        # One more is with answer(), and one with read().
        self._waiting: asyncio.Queue[asyncio.Task[bytes] | Closing] = asyncio.Queue(max(1, self._limits.in_flight - 2))
        self._explaining = asyncio.Lock()  # others explain too
        self._refused = 0

    async def read(self) -> None:
        """Take messages; what ends the socket comes after the answers to those before it."""
        try:
            while True:
                text = await self._socket.receive(self._limits.idle)
                found, name = _named(text)
                task = asyncio.create_task(self._answer(found, name, await self._beyond()))
                try:
                    await self._waiting.put(task)
                except asyncio.CancelledError:
                    task.cancel()
                    raise
        except Closing as end:
            await self._waiting.put(end)

    async def answer(self) -> None:
        """Send answers."""
        while not isinstance(next_ := await self._waiting.get(), Closing):
            await self._socket.send((await next_).decode())
        raise next_

    def drop(self) -> None:
        """Let go of what nobody waits for any more."""
        while not self._waiting.empty():
            if isinstance(left := self._waiting.get_nowait(), asyncio.Task):
                left.cancel()

    async def _beyond(self) -> int:
        """Count a message; the seconds to wait where it is beyond the limit, else 0.

        :raises Closing: when too many were in a row.
        """
        limits = self._parts.rules.limits
        standing = limits.at_once(self._who, ACTION)
        if standing is None:
            standing = await run_in_threadpool(limits.hit, self._who, ACTION)
        self._refused = 0 if standing.allowed else self._refused + 1
        if self._refused > self._limits.refused:
            raise Closing(Close.TOO_MANY, f"no more than {standing.amount} messages; wait {standing.seconds} s before you connect again")
        return 0 if standing.allowed else standing.seconds

    async def _answer(self, found: object, name: Name, beyond: int) -> bytes:
        if beyond:
            return self._problem(name, 429, f"too many messages; wait {beyond} s", "too-many-requests", beyond)
        try:
            message = Message.model_validate(found)
        except ValidationError as error:
            return self._problem(name, 422, first_of(error.errors()), "invalid-request")
        asked = PredictRequest(texts=[message.text], probabilities=message.probabilities, explain=message.explain, abstain=message.abstain)
        words = None
        try:
            if asked.explain:
                async with self._explaining:
                    served, rows, words = await self._parts.predictions.explain(asked.texts)
            else:
                served, rows = await self._parts.predictions.ask(asked.texts)
        except FullError as full:
            self._parts.meters.refused.inc()
            return self._problem(name, 503, "too many texts wait; send it again later", "busy", full.seconds)
        made = answer(asked, served, served.model.read(rows), words)
        return to_json({"id": name, "model": made["model"], "prediction": made["predictions"][0]})

    def _problem(self, name: Name, status: int, detail: str, kind: str, seconds: int | None = None) -> bytes:
        """A message's own problem document; ``retry_after`` is what a header would say."""
        more = {"retry_after": seconds} if seconds else None
        return to_json({"id": name, "error": content(self._websocket, status, detail, kind, more)})


def _named(text: str) -> tuple[object, Name]:
    """A message as it came, and its id.

    :raises Closing: when it has none: it can't be answered.
    """
    try:
        found = json.loads(text)
        return found, Named.model_validate(found).id
    except (ValueError, RecursionError):
        why = "a message is a JSON object with an id: 1 to 64 characters, or a number from 0 on"
        raise Closing(Close.MALFORMED, why) from None
