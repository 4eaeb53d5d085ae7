"""A job over a socket: all that is said of it, live."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, WebSocket
from starlette.concurrency import run_in_threadpool

from finsight.domain.access import Principal
from finsight.domain.jobs import Event, Job
from finsight.domain.policy import Resource
from finsight.errors import DataError
from finsight.service import jobs
from finsight.service.access import may_open
from finsight.service.close_codes import Close, Closing
from finsight.service.job_feed import JobFeed
from finsight.service.job_schemas import Cursor, JobId
from finsight.service.open_socket import OpenSocket
from finsight.service.sockets import Sockets

ACTION = "jobs.read"
router = APIRouter()


@router.websocket("/ws/jobs/{job}")
async def follow_job(websocket: WebSocket, job: JobId, principal: Annotated[Principal, may_open(ACTION)], cursor: Cursor = "") -> None:
    """Tell each event of a job once, from the beginning or after a cursor, until the job has ended."""
    found = await run_in_threadpool(jobs.own, websocket, principal, job)
    sockets: Sockets = websocket.app.state.parts.sockets
    with sockets.place(principal):
        socket = OpenSocket(websocket, sockets, principal, ACTION, Resource("job", job, found.order.tenant, found.order.owner))
        await socket.run(partial(_tell, socket, jobs.parts(websocket).feed, found, cursor), partial(_listen, socket))


async def _tell(socket: OpenSocket, feed: JobFeed, job: Job, cursor: str) -> None:
    async def tell(event: Event) -> None:
        await socket.send(jobs.as_json(event))

    try:
        state = await feed.follow(job, cursor, tell)
    except DataError as error:
        raise Closing(Close.GONE, str(error)) from None
    raise Closing(Close.DONE, state)


async def _listen(socket: OpenSocket) -> None:
    await socket.receive()
    raise Closing(Close.MALFORMED, "a job's socket takes no messages")
