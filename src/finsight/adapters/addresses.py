"""Which addresses a download may talk to: public ones, so that a link or a redirect can't read what only this machine can reach.

Names are resolved and every address is checked before a request; the peer of the connection is checked again before anything is sent,
since a name server may answer differently the second time (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import socket
import urllib.request
from collections.abc import Mapping
from typing import Any

import httpx

from finsight.errors import ParamsError, UnreachableError

SWITCH = "FINSIGHT_ALLOW_PRIVATE_URLS"
# IPv6 ranges whose last 32 bits are an IPv4 address that a gateway may reach: NAT64 (RFC 6052), IPv4-compatible (RFC 4291).
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")  # RFC 8215
_CARRIERS = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))


def is_public(address: str) -> bool:
    """Whether an IP address, and any IPv4 address that it carries, is globally routable and no multicast."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    inner: ipaddress.IPv4Address | None = None
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.is_site_local or ip in _LOCAL_NAT64:
            return False
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if any(ip in carrier for carrier in _CARRIERS):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return all(a.is_global and not a.is_multicast for a in (ip, inner) if a is not None)


def refuse_private(url: httpx.URL) -> None:
    """Resolve the host of ``url`` and check every address.

    :raises ParamsError: when one of them is not public.
    :raises UnreachableError: when the name is unknown.
    """
    host = url.host
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, url.port or 0, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError) as error:
        if proxied(url):
            return  # names outside are the proxy's to resolve there
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreachableError(f"{shown(url)}: no address for {host}: {reason}; check the address and the network") from None
    for address in sorted(found):
        if not is_public(address):
            raise _refusal(host, address)


def refuse_private_peer(event: str, info: Mapping[str, Any]) -> None:
    """A ``trace`` extension for httpx: checks the peer once a connection stands, before a byte is sent.

    :raises ParamsError: when it is not public.
    """
    if event != "connection.connect_tcp.complete":
        return
    stream = info["return_value"]
    address = str(stream.get_extra_info("server_addr")[0])
    if not is_public(address):
        stream.close()
        raise _refusal("the server", address)


def proxied(url: httpx.URL) -> bool:
    """Whether the environment names a proxy for ``url``; its own address is the user's choice and is not judged."""
    proxies = urllib.request.getproxies()
    return bool(proxies.get(url.scheme) or proxies.get("all")) and not urllib.request.proxy_bypass(url.host)


def shown(url: httpx.URL | str) -> str:
    """An address as messages and records may show it: no user, no password, no query (it may carry a token), no fragment."""
    try:
        url = httpx.URL(url)
    except httpx.InvalidURL:
        return "the address"
    host = f"[{url.host}]" if ":" in url.host else url.host
    port = f":{url.port}" if url.port else ""
    return f"{url.scheme}://{host}{port}{url.raw_path.decode().partition('?')[0]}{'?…' if url.query else ''}"


def _refusal(host: str, address: str) -> ParamsError:
    where = address if host == address else f"{host} is {address}"
    return ParamsError(f"{where}: not a public address, so nothing was fetched from it; set {SWITCH}=1 where the server is yours")
