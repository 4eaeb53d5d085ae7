"""Where a request comes from: the socket's peer, unless that is a proxy that we trust to say."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from starlette.requests import HTTPConnection

from finsight.errors import ParamsError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(text: str) -> tuple[Network, ...]:
    """The networks of FINSIGHT_TRUSTED_PROXIES, separated by commas.

    :raises ParamsError: when one is none.
    """
    try:
        return tuple(ipaddress.ip_network(one.strip()) for one in text.split(",") if one.strip())
    except ValueError as error:
        raise ParamsError(f"FINSIGHT_TRUSTED_PROXIES: {error}; expected networks such as 10.0.0.0/8, separated by commas") from None


def address_of(connection: HTTPConnection, trusted: Sequence[Network]) -> str:
    """The address of whoever asks; ``local`` over a Unix socket.

    X-Forwarded-For is read from its right end, which the nearest proxy wrote, for as long as a trusted one vouches for the next: what
    a client put there itself stands further left.
    """
    found = connection.client.host if connection.client else "local"
    hops = [hop.strip() for line in connection.headers.getlist("X-Forwarded-For") for hop in line.split(",")]
    while hops and _within(found, trusted):
        hop = hops.pop()
        try:
            found = str(ipaddress.ip_address(hop))
        except ValueError:
            break
    return found


def client_of(connection: HTTPConnection) -> str:
    """The same, with the proxies that the service trusts."""
    proxies: tuple[Network, ...] = connection.app.state.parts.proxies
    return address_of(connection, proxies)


def same_origin(connection: HTTPConnection) -> bool:
    """Whether a page of ours asks, or no page: a browser says whose it is."""
    own, host = connection.app.state.parts.public_url, connection.headers.get("Host")
    return all(origin == own or origin.partition("://")[2] == host for origin in connection.headers.getlist("Origin"))


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own, without asking a name server."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _within(address: str, trusted: Sequence[Network]) -> bool:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(ip in network for network in trusted)
