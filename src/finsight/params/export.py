"""``export``: graphs, and what they must equal."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from finsight.params.base import Section

Format = Literal[
    "onnx-fp32",
    "onnx-fused",
    "onnx-fp16",
    "onnx-int8",
    "onnx-int8-blocks",
    "onnx-int8-dynamic",
    "onnx-int8-static",
    "openvino-fp32",
    "openvino-bf16",
    "openvino-int8",
    "cuda-fp32",
    "cuda-fp16",
]
"""Runtime, then precision: what a format is computed with and in."""
Program = Literal["torchscript", "torch-export"]
EXACT = frozenset({"onnx-fp32", "onnx-fused", "openvino-fp32", "cuda-fp32"})
"""Formats that differ from the checkpoint by the order of sums alone."""


class LimitParams(Section):
    """Limits on the difference between a format and the checkpoint."""

    max_abs_diff: Annotated[float, Field(ge=0, le=1)]
    """Largest difference of a probability, over the test rows and the hard inputs."""
    label_flip_rate: Annotated[float, Field(ge=0, le=1)]
    """Share of test rows whose predicted label differs."""
    macro_f1_loss: Annotated[float, Field(ge=0, le=1)]
    """Largest loss of macro-F1 that its 95 % interval may reach, where there are ``macro_f1_rows`` test rows or more."""


class GateParams(Section):
    """Limits by what a format computes in."""

    fp32: LimitParams
    reduced: LimitParams
    macro_f1_rows: Annotated[int, Field(ge=1)]

    def of(self, name: str) -> LimitParams:
        """The limits of a format."""
        return self.fp32 if name in EXACT else self.reduced


class ExportParams(Section):
    """What goes into the bundle, and beside it."""

    formats: Annotated[list[Format], Field(min_length=1)]
    """The first is required; any other is left out where it is outside its limits."""
    opset: Annotated[int, Field(ge=18, le=23)]
    vocabulary: Literal["full", "corpora"]
    calibration_rows: Annotated[int, Field(ge=8)]
    """Training rows on which int8 measures what layers get."""
    programs: list[Program]
    gates: GateParams

    @model_validator(mode="after")
    def _agree(self) -> Self:
        for name in ("formats", "programs"):
            wanted = getattr(self, name)
            if len(set(wanted)) < len(wanted):
                raise ValueError(f"{name} names one twice: {', '.join(wanted)}")
        return self
