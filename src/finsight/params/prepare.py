"""``prepare``: from texts to split token ids."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from finsight.params.base import Count, Section, Share


def _day(value: str) -> str:
    date.fromisoformat(value)  # pydantic reports its ValueError
    return value


DateOrShare = Share | Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$"), AfterValidator(_day)]


class SplitParams(Section):
    """How rows are split whose corpus has no split of its own."""

    method: Literal["stratified", "date", "kfold", "held-out"]
    own: bool
    """Whether a corpus's own split is kept."""
    validation: DateOrShare
    test: DateOrShare
    folds: Annotated[int, Field(ge=2)]
    fold: Annotated[int, Field(ge=0)]
    held_out: list[str]
    """Corpora of which every row is for testing."""
    seed: int

    @model_validator(mode="after")
    def _agree(self) -> Self:
        shares = [share for share in (self.validation, self.test) if isinstance(share, float)]
        if len(shares) < 2 and self.method != "date":
            raise ValueError(f"validation and test are shares unless method is date, got {self.validation} and {self.test}")
        if sum(shares) >= 1:
            raise ValueError(f"validation + test is {sum(shares):g}, expected less than 1, so that rows are left for train")
        if self.fold >= self.folds:
            raise ValueError(f"fold is {self.fold}, expected 0 to {self.folds - 1}")
        if (self.method == "held-out") != bool(self.held_out):
            raise ValueError("method held-out and the list held_out go together: name the corpora that are for testing only")
        return self


class PrepareParams(Section):
    """Tokenising and splitting."""

    max_length: Annotated[int, Field(ge=4, le=8192)]
    """Tokens a text is cut to, special ones included."""
    near_duplicates: Annotated[float, Field(ge=0, le=1)]
    """Jaccard similarity of the masked words and word pairs from which two texts are near-duplicates; 0: only equal texts are."""
    split: SplitParams
    engine: Literal["local", "ray"]
    """Who compares and tokenises row groups; it shapes nothing of what is written."""
    workers: Count | None
    """Processes that do; None: this one with all its cores, or one a core of the Ray cluster."""
