"""Who asks. What they may do is decided by a policy; see finsight.service.access."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody, or a program, whose credential was found good.

    :param subject: what the audit log calls them: a key's id, a client's, a user's name at the issuer. Never a secret.
    :param tenant: the group whose jobs and data they see.
    :param roles: of ``viewer``, ``scorer``, ``trainer``, ``releaser``, ``admin``.
    :param scopes: actions that their credential is narrowed to; empty where it is not.
    """

    subject: str
    tenant: str
    roles: frozenset[str]
    scopes: frozenset[str] = frozenset()
