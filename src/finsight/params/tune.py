"""``tune``: the search for better hyperparameters."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, model_validator

from finsight.params.base import Count, Section


class Range(Section):
    """Numbers between two limits; whole ones where both limits are."""

    low: int | float
    high: int | float
    log: bool
    """Whether each factor counts the same, not each difference."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low is {self.low:g}, expected less than high, {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low:g}, expected more than 0 where log is true")
        return self


class Choices(Section):
    """Some values."""

    choices: Annotated[list[bool | int | float | str | None], Field(min_length=2)]


def _kind(value: Any) -> str:
    return "choices" if isinstance(value, Choices) or (isinstance(value, dict) and "choices" in value) else "range"


Values = Annotated[Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")], Discriminator(_kind)]


class TuneParams(Section):
    """What `finsight tune` tries; no stage reads it."""

    trials: Count
    space: Annotated[dict[str, Values], Field(min_length=1)]
    """Key under ``train`` → what it may be."""
