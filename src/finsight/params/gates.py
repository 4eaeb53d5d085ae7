"""``gates``: what a new model has to reach to pass a comparison."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from finsight.params.base import Section


class GateParams(Section):
    """Limits of a comparison."""

    primary: Literal["not worse", "better", "off"]
    at_most: dict[str, float]
    at_least: dict[str, float]
    max_bundle_growth: Annotated[float, Field(ge=0)] | None
