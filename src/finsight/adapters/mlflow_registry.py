"""MLflow's model registry. It has no transactions and no log: versions converge on the lowest, audit lines are tags."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from mlflow.exceptions import MlflowException

from finsight.adapters.mlflow_store import code, connect, reachable, settled
from finsight.errors import DataError, ParamsError
from finsight.pipeline.tracking import BUNDLE_TAG
from finsight.ports import ModelVersion

AUDIT = "finsight.audit."
LONGEST = 5000  # characters of a model's tag or a version's description: what MLflow's columns hold (SQLite alone holds more)


class MlflowRegistry:
    """Versions of one registered model."""

    def __init__(self, uri: str, model: str) -> None:
        self._uri, self._model = uri, model
        self._client = connect(uri)

    def versions(self) -> list[ModelVersion]:
        """See :class:`finsight.ports.ModelRegistry`."""
        with reachable(self._uri):
            return self._versions()

    def _versions(self) -> list[ModelVersion]:
        # Aliases first, of the registered model: search_model_versions leaves them empty.
        held = self._aliases()
        found: list[ModelVersion] = []
        token: str | None = None
        while token != "":
            page = self._client.search_model_versions(f"name = '{self._model}'", max_results=200, page_token=token)
            found += [_version(v, held.get(int(v.version), set())) for v in page]
            token = page.token or ""
        return sorted(found, key=lambda v: v.number)

    def _aliases(self) -> dict[int, set[str]]:
        held: dict[int, set[str]] = {}
        model = self._registered()
        for alias, number in (model.aliases if model else {}).items():
            held.setdefault(int(number), set()).add(alias)
        return held

    def _registered(self) -> Any:
        """The registered model with all its aliases and tags; None where there is none yet."""
        try:
            return self._client.get_registered_model(self._model)
        except MlflowException as error:
            if code(error) != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def create(self, run: str, artifact: str, bundle_digest: str, tags: Mapping[str, str], description: str = "") -> ModelVersion:
        """See :class:`finsight.ports.ModelRegistry`.

        Each process makes its version, then looks again: numbers rise in the order in which versions come about, so that the lowest
        one that holds the bundle is the same for everybody, and those above it are taken away.
        """
        _check_length("description", description)
        with reachable(self._uri):
            if there := self._holding(bundle_digest):
                return there[0]
            self._ensure_registered()
            source = f"{self._client.get_run(run).info.artifact_uri}/{artifact}"
            all_tags = {**tags, BUNDLE_TAG: bundle_digest}
            made = settled(lambda: self._client.create_model_version(self._model, source, run, all_tags, description=description or None))
            first, *surplus = self._holding(bundle_digest) or [_version(made, set())]
            for version in surplus:
                if not version.aliases:
                    self._remove(version.number)
            return first

    def _holding(self, bundle_digest: str) -> list[ModelVersion]:
        """The versions that hold a bundle, lowest first; more than one only while several processes make them."""
        return [v for v in self._versions() if v.bundle_digest == bundle_digest]

    def _ensure_registered(self) -> None:
        if self._registered() is None:
            try:
                settled(lambda: self._client.create_registered_model(self._model))
            except MlflowException as error:
                if code(error) != "RESOURCE_ALREADY_EXISTS":
                    raise

    def _remove(self, number: int) -> None:
        """Delete a version that another process may be deleting too."""
        try:
            settled(lambda: self._client.delete_model_version(self._model, str(number)))
        except MlflowException as error:
            if code(error) != "RESOURCE_DOES_NOT_EXIST":
                raise

    def set_alias(self, alias: str, version: int) -> None:
        """See :class:`finsight.ports.ModelRegistry`."""
        with reachable(self._uri), self._existing(version):
            settled(lambda: self._client.set_registered_model_alias(self._model, alias, str(version)))

    def remove_alias(self, alias: str) -> None:
        """See :class:`finsight.ports.ModelRegistry`."""
        with reachable(self._uri):
            if self._registered() is not None:
                settled(lambda: self._client.delete_registered_model_alias(self._model, alias))

    def tag(self, version: int, tags: Mapping[str, str]) -> None:
        """See :class:`finsight.ports.ModelRegistry`."""
        with reachable(self._uri), self._existing(version):
            for key, value in tags.items():
                settled(partial(self._client.set_model_version_tag, self._model, str(version), key, value))

    def delete(self, version: int) -> None:
        """See :class:`finsight.ports.ModelRegistry`."""
        with reachable(self._uri), self._existing(version):
            settled(lambda: self._client.delete_model_version(self._model, str(version)))

    @contextmanager
    def _existing(self, version: int) -> Iterator[None]:
        """Say it when MLflow does not know the version."""
        try:
            yield
        except MlflowException as error:
            if code(error) != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise DataError(f"version {version} of {self._model}: there is none") from None

    def record(self, line: Mapping[str, str]) -> None:
        """See :class:`finsight.ports.ModelRegistry`."""
        text = json.dumps(dict(line), ensure_ascii=False, sort_keys=True)
        _check_length("audit line", text)
        # A tag's key takes no `+`; the random end keeps lines of one moment apart.
        key = f"{AUDIT}{re.sub(r'[^0-9A-Za-z:.-]', '_', line['when'])}.{secrets.token_hex(4)}"
        with reachable(self._uri):
            self._ensure_registered()
            settled(lambda: self._client.set_registered_model_tag(self._model, key, text))

    def audit(self) -> list[Mapping[str, str]]:
        """See :class:`finsight.ports.ModelRegistry`."""
        with reachable(self._uri):
            model = self._registered()
        lines = [self._line(key, text) for key, text in (model.tags if model else {}).items() if key.startswith(AUDIT)]
        return sorted(lines, key=lambda line: line["when"])

    def _line(self, key: str, text: str) -> Mapping[str, str]:
        with suppress(ValueError):
            line = json.loads(text)
            if isinstance(line, dict) and isinstance(line.get("when"), str):
                return line
        raise DataError(f"{self._model}: its tag {key} is no audit line but {text[:60]!r}; it was changed by hand: remove it in MLflow")


def _version(found: Any, aliases: set[str]) -> ModelVersion:
    created = datetime.fromtimestamp(found.creation_timestamp / 1000, UTC).isoformat(timespec="milliseconds")
    return ModelVersion(
        int(found.version),
        found.tags.get(BUNDLE_TAG, ""),
        found.run_id or "",
        frozenset(aliases),
        dict(found.tags),
        found.description or "",
        created,
    )


def _check_length(what: str, text: str) -> None:
    if len(text) > LONGEST:
        raise ParamsError(f"{what}: got {len(text)} characters, MLflow keeps {LONGEST}; shorten it")
