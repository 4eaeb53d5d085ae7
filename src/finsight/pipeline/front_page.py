"""The front page of the Data Docs, and pages that need no network: Great Expectations' own load scripts and styles from a dozen hosts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from finsight.pipeline.checks import Check

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; margin-bottom: 0 } h2 { font-size: 1.15rem; margin: 2rem 0 .4rem }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #ddd; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
td.ok, p.ok { color: #17692f } td.warning, p.warning { color: #9a5b00 } td.critical, p.critical { color: #b3261e } tr.info { color: #666 }
tr.warning, tr.critical { background: #fff6e8 } a { color: #1a5dab }
.fa-check-circle::before { content: "✓"; color: #17692f } .fa-times::before { content: "✗"; color: #b3261e }
.fa-exclamation-triangle::before { content: "!"; color: #9a5b00 }
"""
# Whatever would be fetched when the page is opened.
_FETCHED = re.compile(r"""<script\b[^>]*\bsrc=["']https?:[^>]*>\s*</script>|<(?:link|img)\b[^>]*\b(?:href|src)=["']https?:[^>]*>""")

_FETCHED_BY_STYLES = re.compile(r"""url\(\s*["']?https?:[^)]*\)""")


def finish_docs(folder: Path, outcome: Sequence[tuple[str, Check, bool]]) -> None:
    """Write ``index.html``, and take out of all other pages what they would fetch."""
    for page in folder.rglob("*.html"):
        content = _FETCHED_BY_STYLES.sub("none", _FETCHED.sub("", page.read_text(encoding="utf-8")))
        page.write_text(content.replace("</head>", f"<style>{STYLE}</style></head>", 1), encoding="utf-8")
    suites = list(dict.fromkeys(suite for suite, *_ in outcome))
    failed = {severity: sum(not held and c.severity == severity for _, c, held in outcome) for severity in ("critical", "warning")}
    word = "critical" if failed["critical"] else "warning" if failed["warning"] else "ok"
    verdict = {
        "critical": f"{failed['critical']} critical: the pipeline stopped here.",
        "warning": f"No critical failure; {failed['warning']} warnings to read.",
        "ok": "Everything that was expected of the data holds.",
    }[word]
    body = [f"<h1>Is the data fit for training?</h1><p class={word}><strong>{verdict}</strong></p>"]
    for suite in suites:
        rows = "".join(_row(check, held) for name, check, held in outcome if name == suite)
        pages = sorted((folder / "validations" / suite).rglob("*.html"))
        link = f' · <a href="{quote(pages[-1].relative_to(folder).as_posix())}">as Great Expectations has it</a>' if pages else ""
        body.append(f"<h2>{escape(suite)}{link}</h2><table><tr><th></th><th>expected</th><th>found</th><th>rows</th></tr>{rows}</table>")
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Data validation</title><style>{STYLE}</style></head>'
    (folder / "index.html").write_text(f"{head}<body>{''.join(body)}</body></html>\n", encoding="utf-8")


def _row(check: Check, held: bool) -> str:
    word = ("info" if check.severity == "info" else "ok") if held else check.severity
    sign = {"ok": "✓", "info": "·", "warning": "! warning", "critical": "✗ critical"}[word]
    value = check.value if isinstance(check.value, str) else f"{check.value:,.4g}" if isinstance(check.value, float) else f"{check.value:,}"
    found = escape(check.found) if not held or check.severity == "info" else ""
    cells = f"<td>{escape(check.sentence)}</td><td class=number>{escape(value)}</td><td>{found}</td>"
    return f"<tr class={word}><td class={word}>{sign}</td>{cells}</tr>"
