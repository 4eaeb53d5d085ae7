"""The last layer computed for the first token alone, where the head looks at no other.

A classification head over the first token ([CLS], <s>) throws away all other rows of the last layer. Queries, attention output and
feed-forward of that layer are computed for one token a text then, keys and values for all as before: the same logits for a sixth less
arithmetic in a model of six layers. Source: the same saving is in TurboTransformers and in ONNX Runtime's GPT export; here it is done
on any graph, by moving the selection of the first token upwards through operators that treat tokens one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

Shape = list["int | str | None"]  # a name is a dynamic dimension
# Operators that treat each number by itself; with several inputs, these broadcast.
_BY_NUMBER = frozenset(
    ("Add", "Sub", "Mul", "Div", "Pow", "Where", "Min", "Max", "And", "Or", "Gelu", "Erf", "Tanh", "Relu", "Sigmoid", "Sqrt", "Cast", "Neg")
)


@dataclass(frozen=True)
class _Shapes:
    """What shape inference found out, by value."""

    known: Mapping[str, Shape]

    def __getitem__(self, name: str) -> Shape | None:
        return self.known.get(name)

    def constant(self, name: str, axis: int) -> bool:
        """Whether a value has nothing to select along an axis, counted from the right."""
        shape = self.known[name]
        return len(shape) < axis or shape[-axis] == 1


def read_first_token_only(model: onnx.ModelProto) -> int:
    """Move selections of the first token (``Gather`` with index 0 on axis 1) upwards, in place; how many operators compute less now.

    A value that is also needed for the other tokens is sliced, never moved past. A graph whose head reads all tokens is left as it is.
    """
    graph = model.graph
    shapes = _shapes(model)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    uses: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            uses[name] = uses.get(name, 0) + 1
    for output in graph.output:
        uses[output.name] = uses.get(output.name, 0) + 1
    wanted: dict[str, list[tuple[onnx.NodeProto, int, int]]] = {}  # value → who wants its first token: node, input, axis
    moved, slices = 0, []
    for node in reversed(graph.node):
        output = node.output[0]
        if _selects_first(node, constants):
            wanted.setdefault(node.input[0], []).append((node, 0, 1))
            continue
        asked = wanted.get(output)
        if not asked:
            continue
        axes = {axis for *_, axis in asked}
        needs = _MOVES.get(node.op_type, _by_number)(node, axes.pop(), shapes) if len(axes) == 1 and len(asked) == uses[output] else None
        if needs is None:
            slices.append(output)
            continue
        moved += 1
        for at, axis in needs:
            wanted.setdefault(node.input[at], []).append((node, at, axis))
        if node.op_type == "Reshape":
            _keep_leading(graph, node, shapes)
    slices += [name for name in wanted if name in constants or any(name == value.name for value in graph.input)]
    if moved:
        _slice(graph, {name: wanted[name] for name in slices})
        del graph.value_info[:]  # shapes that are no longer right
    return moved


def _selects_first(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    if node.op_type != "Gather" or node.input[1] not in constants:
        return False
    index = numpy_helper.to_array(constants[node.input[1]])
    return _attribute(node, "axis", 0) == 1 and index.shape == () and index == 0


def _by_number(node: onnx.NodeProto, axis: int, shapes: _Shapes) -> list[tuple[int, int]] | None:
    """The inputs whose first token is needed for that of the output, each with its axis; None where there is no saying."""
    out = shapes[node.output[0]]
    if node.op_type not in _BY_NUMBER or out is None or any(shapes[name] is None for name in node.input):
        return None
    right = len(out) - axis
    return [(i, len(shapes.known[name]) - right) for i, name in enumerate(node.input) if not shapes.constant(name, right)]


def _along_rows(node: onnx.NodeProto, axis: int, shapes: _Shapes) -> list[tuple[int, int]] | None:
    """Of operators over the last axis: normalisation, softmax."""
    out = shapes[node.output[0]]
    over = _attribute(node, "axis", -1)
    return [(0, axis)] if out is not None and over in (-1, len(out) - 1) and axis < len(out) - 1 else None


def _matmul(node: onnx.NodeProto, axis: int, shapes: _Shapes) -> list[tuple[int, int]] | None:
    out, left = shapes[node.output[0]], shapes[node.input[0]]
    return [(0, len(left) - 2)] if out is not None and left is not None and axis == len(out) - 2 and len(left) > 1 else None


def _transpose(node: onnx.NodeProto, axis: int, _: _Shapes) -> list[tuple[int, int]] | None:
    order = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
    return [(0, order[axis])] if order else None


def _reshape(node: onnx.NodeProto, axis: int, shapes: _Shapes) -> list[tuple[int, int]] | None:
    """Heads split off the last axis or joined to it, batch and token staying where they are."""
    before, after = shapes[node.input[0]], shapes[node.output[0]]
    if axis != 1 or before is None or after is None or before[:2] != after[:2] or None in before[:2]:
        return None
    rest = [dims[2:] for dims in (before, after)]
    if not all(isinstance(d, int) and d > 0 for dims in rest for d in dims):
        return None
    return [(0, 1)] if np.prod(rest[0]) == np.prod(rest[1]) else None  # type: ignore[arg-type]


_MOVES: dict[str, Callable[[onnx.NodeProto, int, _Shapes], list[tuple[int, int]] | None]] = {
    "LayerNormalization": _along_rows,
    "Softmax": _along_rows,
    "MatMul": _matmul,
    "Transpose": _transpose,
    "Reshape": _reshape,
}


def _keep_leading(graph: onnx.GraphProto, node: onnx.NodeProto, shapes: _Shapes) -> None:
    """Let a reshape take batch and token count from its input: the graph's own says that all tokens are there."""
    name = f"{node.output[0]}_shape"
    target = np.array([0, 0, *shapes.known[node.output[0]][2:]], dtype=np.int64)  # 0 copies a dimension
    graph.initializer.append(numpy_helper.from_array(target, name))
    node.input[1] = name
    del node.attribute[:]


def _slice(graph: onnx.GraphProto, wanted: Mapping[str, list[tuple[onnx.NodeProto, int, int]]]) -> None:
    """Put a ``Slice`` behind each value and let those who want its first token alone read that."""
    made: dict[str, list[onnx.NodeProto]] = {}
    for name, readers in wanted.items():
        for axis in sorted({axis for *_, axis in readers}):
            first = f"{name}_first_{axis}"
            bounds = [f"{first}_{word}" for word in ("start", "end", "axis")]
            for bound, value in zip(bounds, (0, 1, axis), strict=True):
                graph.initializer.append(numpy_helper.from_array(np.array([value], dtype=np.int64), bound))
            made.setdefault(name, []).append(onnx.helper.make_node("Slice", [name, *bounds], [first]))
            for node, at, its in readers:
                if its == axis:
                    node.input[at] = first
    nodes = [cut for name in wanted if not any(name in node.output for node in graph.node) for cut in made[name]]
    for node in graph.node:
        nodes += [node, *(cut for output in node.output for cut in made.get(output, []))]
    del graph.node[:]
    graph.node.extend(nodes)


def _shapes(model: onnx.ModelProto) -> _Shapes:
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    found: dict[str, Shape] = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in [*graph.value_info, *graph.input, *graph.output]:
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            found[value.name] = [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in dims]
    return _Shapes(found)


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)
