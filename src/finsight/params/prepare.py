"""``prepare``: from texts to split token ids."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from finsight.params.base import Section, Share


class SplitParams(Section):
    """Shares of each label for rows whose corpus has no split of its own."""

    validation: Share
    test: Share
    seed: int

    @model_validator(mode="after")
    def _leave_train(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(f"validation + test is {self.validation + self.test:g}, expected less than 1, so that rows are left for train")
        return self


class PrepareParams(Section):
    """Tokenising and splitting."""

    max_length: Annotated[int, Field(ge=4, le=8192)]
    """Tokens a text is cut to, special ones included."""
    split: SplitParams
