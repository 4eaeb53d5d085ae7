"""Who asks. What they may do is decided by a policy; see finsight.service.access."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody, or a program, whose credential was found good.

    :param subject: what the audit log calls them: a key's id, a client's, a user's name at the issuer. Never a secret.
    :param tenant: the group whose jobs and data they see.
    :param roles: of ``viewer``, ``scorer``, ``trainer``, ``releaser``, ``monitor``, ``admin``.
    :param scopes: actions that their credential is narrowed to; empty where it is not.
    """

    subject: str
    tenant: str
    roles: frozenset[str]
    scopes: frozenset[str] = frozenset()


def neighbourhood(address: str) -> str:
    """What is counted together where addresses are counted: one IPv6 customer has a /64 at least, and could ask each time from another
    address of it. What is no address stands for itself."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped or ipaddress.IPv6Network((int(ip), 64), strict=False).network_address)
    return str(ip)
