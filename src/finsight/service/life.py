"""How the service ends."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(slots=True)
class Life:
    """Where the service is between start and end.

    :param draining: it has been told to end, and answers what it has taken.
    """

    draining: bool = False


class LastAnswers:
    """ASGI middleware: once the service has been told to end, each answer is the last of its connection.

    Otherwise a client's next request could meet the connection being closed, and be lost.
    """

    def __init__(self, app: ASGIApp, life: Life) -> None:
        self._app, self._life = app, life

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""

        async def last(message: Message) -> None:
            if message["type"] == "http.response.start" and self._life.draining:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, receive, last if scope["type"] == "http" else send)
