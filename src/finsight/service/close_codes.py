"""How a socket of the service ends: docs/service-sockets.md has the same as a table."""

from __future__ import annotations

from enum import IntEnum


class Close(IntEnum):
    """Close codes (RFC 6455, 7.4). Those from 4400 on are ours, and end like the status of HTTP that says the same, where there is one."""

    DONE = 1000
    """All is said; of a job's socket the reason is the job's state."""
    BREACH = 1002
    """What came is not as RFC 6455 has it; the server's protocol finds that, and what ends with 1007 to 1009."""
    UNSUPPORTED = 1003
    """A binary frame came."""
    NOT_TEXT = 1007
    """What came is not UTF-8."""
    FRAMES = 1008
    """A message came in too many frames, or pings without end."""
    TOO_LARGE = 1009
    """A message is larger than may be."""
    UNFORESEEN = 1011
    """Something went wrong here; or the peer answered no ping, which the server's protocol finds."""
    RESTART = 1012
    """The service ends."""
    TRY_AGAIN = 1013
    """An outside system does not answer."""
    MALFORMED = 4400
    """What came is no message, so that it can't be answered."""
    UNKNOWN = 4401
    """The credential has expired or was taken back."""
    FORBIDDEN = 4403
    """The policy no longer allows it."""
    GONE = 4404
    """The job is no longer there."""
    IDLE = 4408
    """Nothing came for too long."""
    AGE = 4410
    """The socket was open for as long as one may be."""
    SLOW = 4411
    """What was sent was not taken for too long."""
    TOO_MANY = 4429
    """Messages went on coming beyond the limit."""


REFUSALS = {Close.UNKNOWN: 401, Close.FORBIDDEN: 403, Close.TOO_MANY: 429}
"""Those that are refusals, with the status that the audit log calls them by."""


class Closing(Exception):  # noqa: N818 (no error: how a socket ends)
    """The socket is to be closed.

    :param reason: for people; what is over 123 bytes is cut off.
    """

    def __init__(self, code: Close, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason
