"""``export``: graphs, and what they must equal."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from finsight.params.base import Section

Format = Literal["onnx-fp32", "onnx-int8"]


class GateParams(Section):
    """Limits on the difference between one format and the checkpoint, over the test rows."""

    max_abs_diff: Annotated[float, Field(ge=0, le=1)]
    """Largest difference of a probability."""
    label_flip_rate: Annotated[float, Field(ge=0, le=1)]
    """Share of rows whose predicted label differs."""


class ExportParams(Section):
    """What goes into the bundle."""

    formats: Annotated[list[Format], Field(min_length=1)]
    opset: Annotated[int, Field(ge=18, le=23)]
    gates: dict[Format, GateParams]
