"""From a torch model to ONNX files with the same bytes each time."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
import torch
from torch.export import Dim
from transformers import PreTrainedModel

from finsight.modeling.first_token import read_first_token_only


class _Logits(torch.nn.Module):
    """The model with tensors in and one tensor out: graphs have no output objects."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def export_onnx(model: PreTrainedModel, path: Path, opset: int) -> None:
    """Write the fp32 graph: ``input_ids`` and ``attention_mask`` (batch, seq) int64 → ``logits`` (batch, k) float32.

    Batch and length are dynamic. Where the head reads the first token alone, the last layer computes no other.
    """
    wrapper = _Logits(model).eval()  # the wrapper too: the exporter restores its mode, and dropout would come back with it
    # Any example will do, but its dimensions must be larger than 1, or the exporter takes them for constants.
    ids = torch.ones((2, 8), dtype=torch.int64)
    dims = _dimensions(model)
    with silence():
        program = torch.onnx.export(
            wrapper,
            (),
            kwargs={"input_ids": ids, "attention_mask": torch.ones_like(ids)},
            dynamo=True,
            opset_version=opset,
            dynamic_shapes={"input_ids": dims, "attention_mask": dims},
            output_names=["logits"],
            external_data=False,
            verbose=False,
        )
    if program is None:  # documented for dynamo=False only
        raise RuntimeError("torch.onnx.export returned nothing")
    proto = program.model_proto
    read_first_token_only(proto)
    write_graph(proto, path)


def export_programs(model: PreTrainedModel, files: Mapping[str, Path]) -> None:
    """Write the model for those who run torch: ``torchscript`` and ``torch-export`` to the files named. Neither is ever read here.

    A TorchScript archive contains pickles, and torch has deprecated it in favour of ``torch.export``: neither is part of a bundle.
    """
    wrapper = _Logits(model).eval()
    ids = torch.ones((2, 8), dtype=torch.int64)
    mask = torch.ones_like(ids)
    with silence():
        if "torchscript" in files:
            traced = torch.jit.trace(wrapper, (ids, mask), strict=False)  # type: ignore[no-untyped-call]
            torch.jit.save(traced, files["torchscript"])
        if "torch-export" in files:
            dims = _dimensions(model)
            torch.export.save(torch.export.export(wrapper, (ids, mask), dynamic_shapes=(dims, dims)), files["torch-export"])


def _dimensions(model: PreTrainedModel) -> dict[int, Dim]:
    """Batch and length, with what the model has positions for as the most."""
    limit = getattr(model.config, "max_position_embeddings", None)
    return {0: Dim("batch", min=1, max=2**16), 1: Dim("seq", min=2, max=limit or 2**16)}


def write_graph(proto: onnx.ModelProto, path: Path) -> None:
    """Write a graph without the exporters' notes on where each node came from (paths of this machine), in the same bytes each time."""
    _strip(proto)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _strip(proto: onnx.ModelProto) -> None:
    del proto.metadata_props[:]
    proto.doc_string = ""
    graphs = [proto.graph, *proto.functions]
    for graph in graphs:
        graph.doc_string = ""
        del graph.metadata_props[:]
        for node in graph.node:
            node.doc_string = ""
            del node.metadata_props[:]
    for value in [*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer]:
        value.doc_string = ""
        del value.metadata_props[:]


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep the exporters' notices (printed, warned and logged) out of a stage's output; errors still come through."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    # It warns that torchvision's operators are left out.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings(), Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            root.setLevel(level)
