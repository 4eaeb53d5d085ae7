"""What every section of params.yaml has in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A frozen section; unknown keys and look-alike types ("1" for 1) are refused. Only the keys that describe a corpus's file have
    defaults: params.yaml is the one place where a value stands, so that DVC sees every one. A switch that came later is off by default, so
    that a file of before goes on working."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
