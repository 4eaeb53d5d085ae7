"""Whether anything listens at an address, before a library tries for minutes."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

SECONDS = 5


def no_answer(url: str) -> str | None:
    """Why nothing can be reached at an http(s) address, or None when something listens there."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:  # a port or a host name that can't be one
        return str(error)
    return None
