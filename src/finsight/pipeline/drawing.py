"""Drawings for the report and for pull requests: data in, a figure out, and an SVG or PNG of it that is the same for the same data."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context, rcParamsDefault
from matplotlib.figure import Figure
from numpy.typing import NDArray

from finsight.domain.scores import LOWER_IS_BETTER
from finsight.domain.significance import BETTER, WORSE
from finsight.files import atomic_file

BLUE, RED, GREEN, GREY, LIGHT = "#2563eb", "#dc2626", "#15803d", "#64748b", "#e2e8f0"
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.titlesize": 10,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "svg.fonttype": "none",  # letters stay letters: small, and found by the browser's search
    "svg.hashsalt": "finsight",  # or names in the SVG would differ from run to run
    "text.parse_math": False,  # a name may have a $
}
_SIZE = (4.4, 3.3)  # inches

Rows = Sequence[Mapping[str, Any]]


def _styled() -> Any:
    """Our style over matplotlib's own, whatever the user's matplotlibrc says."""
    return rc_context({name: value for name, value in rcParamsDefault.items() if name != "backend"} | _STYLE)


def confusion(labels: Sequence[str], matrix: NDArray[np.integer], title: str = "Actual and predicted labels") -> Figure:
    """Rows of each actual label (down) that got each label (across), with their share of the actual label's.

    :param matrix: (k, k).
    """
    with _styled():
        figure, axes = _axes(title)
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors="white")
        axes.invert_yaxis()
        for (i, j), n in np.ndenumerate(matrix):
            axes.text(
                j + 0.5, i + 0.5, f"{n}\n{shares[i, j]:.0%}", ha="center", va="center", color="white" if shares[i, j] > 0.5 else "black"
            )
        middles = np.arange(len(labels)) + 0.5
        axes.set_xticks(middles, labels)
        axes.set_yticks(middles, labels)
        axes.set(xlabel="predicted", ylabel="actual")
        axes.spines[:].set_visible(False)
        return figure


def reliability(bins: Rows) -> Figure:
    """Share of right answers against confidence; the larger a dot, the more rows it stands for.

    :param bins: ``confidence``, ``accuracy`` and ``rows`` of each.
    """
    with _styled():
        figure, axes = _axes("Reliability: is 80 % sure right in 80 %?")
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
        rows = np.array([b["rows"] for b in bins], dtype=float)
        x, y = ([b[name] for b in bins] for name in ("confidence", "accuracy"))
        axes.plot(x, y, color=BLUE, linewidth=1)
        axes.scatter(x, y, s=10 + 120 * rows / rows.max(), color=BLUE, alpha=0.6)
        axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
        return figure


def coverage(points: Rows, wanted: float, answered: float | None) -> Figure:
    """Accuracy on the rows that are answered when the surest are answered first.

    :param points: ``coverage`` and ``accuracy``.
    :param wanted: the precision that the abstain threshold was chosen for, and ``answered``: the share of test rows above it, if any is.
    """
    with _styled():
        figure, axes = _axes("Accuracy by share of rows answered")
        axes.plot([p["coverage"] for p in points], [p["accuracy"] for p in points], color=BLUE)
        axes.axhline(wanted, color=GREY, linestyle=":", linewidth=1)
        if answered is not None:
            axes.axvline(answered, color=RED, linewidth=1)
            axes.annotate(f"threshold of the bundle: {answered:.0%}", (answered, 0.03), color=RED, rotation=90, ha="right", va="bottom")
        axes.set(xlabel="share of rows answered, the surest first", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
        return figure


def curves(epochs: Rows) -> Figure:
    """Losses (left) and validation scores (right) by epoch."""
    with _styled():
        figure, axes = _axes("Learning curves")
        x = [e["epoch"] for e in epochs]
        axes.plot(x, [e["train_loss"] for e in epochs], color=GREY, marker="o", label="train loss")
        axes.plot(x, [e["validation_loss"] for e in epochs], color=BLUE, marker="o", label="validation loss")
        axes.set(xlabel="epoch", ylabel="loss (nats)", ylim=(0, None), xticks=x if len(x) <= 12 else x[:: len(x) // 10])
        right = axes.twinx()
        right.plot(x, [e["validation_macro_f1"] for e in epochs], color=GREEN, marker="s", linestyle="--", label="validation macro-F1")
        right.set(ylim=(0, 1), ylabel="macro-F1")
        right.spines["right"].set_visible(True)
        axes.legend(*(a + b for a, b in zip(axes.get_legend_handles_labels(), right.get_legend_handles_labels(), strict=True)), fontsize=7)
        return figure


def lengths(sizes: Rows) -> Figure:
    """How many texts have how many tokens.

    :param sizes: ``tokens`` and ``texts``.
    """
    with _styled():
        figure, axes = _axes("Lengths of the corpus's texts")
        axes.bar([s["tokens"] for s in sizes], [s["texts"] for s in sizes], width=1.0, color=BLUE)
        axes.set(xlabel="tokens", ylabel="texts")
        return figure


def differences(metrics: Mapping[str, Mapping[str, Any]], primary: str) -> Figure:
    """The difference in each metric with its interval, to the right where the new model is better; coloured where it is significant.

    :param metrics: of a comparison: ``difference``, ``low``, ``high``, ``verdict`` of each.
        Those of which less is better are drawn with the sign turned.
    """
    with _styled():
        names = [*(name for name in reversed([*metrics]) if name != primary), primary]  # from below
        figure, axes = _axes("New model against base", (6.0, 0.9 + 0.26 * len(names)))
        axes.axvline(0, color=GREY, linewidth=1)
        for y, name in enumerate(names):
            row, sign = metrics[name], -1 if name in LOWER_IS_BETTER else 1
            color = {BETTER: GREEN, WORSE: RED}.get(row["verdict"], GREY)
            axes.plot([sign * row["low"], sign * row["high"]], [y, y], color=color, linewidth=2 if name == primary else 1)
            axes.plot([sign * row["difference"]], [y], color=color, marker="o", markersize=5)
        shown = [f"{name} (primary)" if name == primary else f"−{name}" if name in LOWER_IS_BETTER else name for name in names]
        axes.set_yticks(range(len(names)), shown)
        axes.set(xlabel="difference with its 95 % interval; right of 0 the new model is better")
        return figure


def svg(figure: Figure) -> str:
    """An ``<svg>`` element that scales with the page."""
    stream = io.StringIO()
    with _styled():
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def save_png(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG."""
    with atomic_file(path) as partial, _styled():
        figure.savefig(partial, format="png", dpi=120, metadata={"Software": None})


def _axes(title: str, size: tuple[float, float] = _SIZE) -> tuple[Figure, Any]:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left")
    return figure, axes
