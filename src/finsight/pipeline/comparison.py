"""A comparison in words: for the terminal, and for a pull request."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from finsight.domain.significance import BETTER, SAME, WORSE
from finsight.pipeline.cells import markdown, printable, shortened
from finsight.pipeline.compare import Side
from finsight.pipeline.gating import tell

_ROWS_SHOWN, _CHARACTERS = 20, 300  # of flips, and of the text of each
_HEAD = ("metric", "base", "new", "difference", "95 % interval", "p", "")


def verdict(content: Mapping[str, Any]) -> str:
    """The one sentence that a reviewer needs."""
    row = content["metrics"][content["primary"]]
    said = {BETTER: "is better", WORSE: "is worse", SAME: "does not differ significantly"}[content["verdict"]]
    sentence = (
        f"{content['new']} {said} in {content['primary']}: {row['base']:.3f} → {row['new']:.3f} "
        f"({row['difference']:+.3f}, 95 % interval {row['low']:+.3f} to {row['high']:+.3f}, p {_p(row['p'])}, "
        f"{content['rows']['both']} rows)"
    )
    return sentence + (f"; {tell(content)}" if tell(content) else "")


def as_text(content: Mapping[str, Any]) -> str:
    """A screen for the terminal."""
    mcnemar = content["mcnemar"]
    lines = ["", verdict(content), *_common(content), "", *_aligned([_HEAD, *_metrics(content)])]
    lines += ["", f"labels: {mcnemar['fixed']} rows fixed, {mcnemar['broken']} broken, McNemar's exact p {_p(mcnemar['p'])}"]
    lines += _aligned([("slice", "rows", "difference", "95 % interval", "p", ""), *_slices(content)])
    for name in ("fixed", "broken"):
        flips = content["flips"][name]
        lines += ["", f"{name}: {len(flips)}" + (f", the first {_ROWS_SHOWN}" if len(flips) > _ROWS_SHOWN else "")] if flips else []
        rows = [(f"{f['label']}, was {f['base']}, now {f['new']}", shortened(f["text"], _CHARACTERS)) for f in flips[:_ROWS_SHOWN]]
        lines += _aligned(rows)
    for name in ("behaviour", "formats", "params", "data"):
        changes = list(_changes(content, name))
        lines += ["", name, *_aligned([("", "base", "new"), *changes])] if changes else []
    return "\n".join([*lines, "", *_gates(content), ""])


def as_markdown(content: Mapping[str, Any]) -> str:
    """A comment for a pull request: the verdict first, what it rests on below, details folded."""
    sign = {BETTER: "🟢", WORSE: "🔴", SAME: "⚪"}[content["verdict"]]
    lines = [f"## {sign} {markdown(verdict(content))}", "", *(markdown(line) for line in _common(content)), ""]
    lines += [*(f"- {markdown(line)}" for line in _gates(content)), "", *_table([_HEAD, *_metrics(content)])]
    lines += ["", *(f"![{Path(name).name}]({name})" for name in content.get("images", ()))]
    mcnemar = content["mcnemar"]
    lines += ["", f"{mcnemar['fixed']} rows fixed, {mcnemar['broken']} broken, McNemar's exact p {_p(mcnemar['p'])}.", ""]
    slices = [("slice", "rows", "difference", "95 % interval", "p", ""), *_slices(content)]
    lines += _folded(f"{content['primary']} by slice", slices)
    for name in ("fixed", "broken"):
        flips = content["flips"][name]
        rows = [(f["label"], f["base"], f["new"], shortened(f["text"], _CHARACTERS)) for f in flips[:_ROWS_SHOWN]]
        lines += _folded(f"{name}: {len(flips)}", [("label", "base", "new", "text"), *rows]) if flips else []
    for name, title in (
        ("behaviour", "failures of behavioural tests"),
        ("formats", "size and speed"),
        ("params", "parameters"),
        ("data", "data"),
    ):
        changes = list(_changes(content, name))
        lines += _folded(title, [("", "base", "new"), *changes]) if changes else []
    return "\n".join(lines) + "\n"


def as_json(content: Mapping[str, Any]) -> str:
    """All of it, for programs."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def draw(content: Mapping[str, Any], base: Side, new: Side, folder: Path) -> list[str]:
    """Write the drawings of a comparison into a folder, as PNGs; return their names."""
    from finsight.pipeline import drawing  # takes half a second

    figures = {"differences": drawing.differences(content["metrics"], content["primary"])}
    for side, name in ((base, "base"), (new, "new")):
        figures[f"confusion-{name}"] = drawing.confusion(side.predictions.labels, side.predictions.counts(), f"{name}: {side.name}")
    for name, figure in figures.items():
        drawing.save_png(figure, folder / f"{name}.png")
    return [f"{name}.png" for name in figures]


FORMATS: dict[str, Callable[[Mapping[str, Any]], str]] = {"text": as_text, "markdown": as_markdown, "json": as_json}


def _common(content: Mapping[str, Any]) -> list[str]:
    rows = content["rows"]
    if rows["base"] == rows["new"] == rows["both"]:
        return []
    return [
        f"Their test sets differ: {content['base']} has {rows['base']} rows, {content['new']} {rows['new']}; compared on {rows['both']}."
    ]


def _gates(content: Mapping[str, Any]) -> list[str]:
    """What the gates said, where they were asked."""
    if "gates" not in content:
        return []
    return [f"gate failed: {failure}" for failure in content["gates"]] or ["gates passed"]


def _metrics(content: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The primary metric first."""
    for name in sorted(content["metrics"], key=lambda name: name != content["primary"]):
        row = content["metrics"][name]
        shown = name + (" (primary)" if name == content["primary"] else "")
        yield shown, f"{row['base']:.3f}", f"{row['new']:.3f}", *_moved(row)


def _slices(content: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, row in content["slices"].items():
        yield name, str(row["rows"]), *(_moved(row) if "p" in row else ("", "", "", "too few rows"))


def _moved(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    said = "" if row["verdict"] == SAME else row["verdict"]
    return f"{row['difference']:+.3f}", f"{row['low']:+.3f} to {row['high']:+.3f}", _p(row["p"]), said


def _changes(content: Mapping[str, Any], what: str) -> Iterator[tuple[str, str, str]]:
    if what == "formats":
        for name, row in content["formats"].items():
            for measured, pair in row.items():
                yield f"{name} {measured.replace('_', ' ')}", f"{pair['base']:,}", f"{pair['new']:,}"
    elif what == "behaviour":
        for name, pair in content["behaviour"].items():
            asked = {side: content["behaviour_cases"][side].get(name) for side in pair}  # another suite is no other model
            told = {side: "" if rate is None else f"{rate:.0%}" + f" of {asked[side]}" * bool(asked[side]) for side, rate in pair.items()}
            if told["base"] != told["new"]:
                yield name, told["base"], told["new"]
    else:
        for name, pair in content[what].items():
            yield name, str(pair["base"]), str(pair["new"])


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*shown, strict=True)]
    return ["  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    head, *body = rows

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    return [line(head), line(["---"] * len(head)), *(line([markdown(cell) for cell in row]) for row in body)]


def _folded(title: str, rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [f"<details><summary>{markdown(title)}</summary>", "", *_table(rows), "", "</details>", ""]
