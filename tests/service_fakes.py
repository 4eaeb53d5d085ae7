"""Stand-ins in memory for what the service keeps; tests/contracts holds them to what Redis does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from finsight.domain.keys import ApiKey


class MemoryKeys:
    """See :class:`finsight.service_ports.KeyStore`."""

    def __init__(self) -> None:
        self._keys: dict[str, ApiKey] = {}

    def add(self, key: ApiKey) -> None:
        self._keys[key.id] = key

    def get(self, id_: str) -> ApiKey | None:
        return self._keys.get(id_)

    def page(self, tenant: str, before: str | None, limit: int) -> list[ApiKey]:
        found = sorted((id_ for id_, key in self._keys.items() if key.tenant == tenant and (not before or id_ < before)), reverse=True)
        return [self._keys[id_] for id_ in found[:limit]]

    def change(self, id_: str, how: Callable[[ApiKey], ApiKey]) -> ApiKey | None:
        old = self._keys.get(id_)
        if old is None:
            return None
        self._keys[id_] = replace(how(old), used=old.used)
        return self._keys[id_]

    def used(self, key: ApiKey, now: float) -> None:
        if key.used is None or now - key.used >= 60:
            self._keys[key.id] = replace(self._keys[key.id], used=now)
