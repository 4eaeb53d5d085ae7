"""A real headless Chromium, and what every page has to hold to in it."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here: install the package chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


# WCAG 2.2: contrast of each text (1.4.3), a name for each control (4.1.2), headings in order (1.3.1), nothing wider than the window
# (1.4.10).
CHECK = """() => {
  const found = [];
  const parse = colour => { const c = colour.match(/[\\d.]+/g).map(Number); return c.length > 3 && c[3] === 0 ? null : c.slice(0, 3); };
  const light = c => c.map(v => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; })
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = node => {
    for (; node; node = node.parentElement) {
      const c = parse(getComputedStyle(node).backgroundColor);
      if (c) return c;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const node = text.parentElement;
    if (!text.data.trim() || ["OPTION", "METER", "PROGRESS"].includes(node.tagName) || node.closest(".unseen, .skip")) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found.push(`contrast ${ratio.toFixed(2)}: ${text.data.trim()}`);
  }
  for (const control of document.querySelectorAll("input:not([type=hidden]), textarea, select, meter, progress"))
    if (!control.labels?.length && !control.ariaLabel) found.push(`no label: ${control.outerHTML}`);
  for (const button of document.querySelectorAll("button, a[href]"))
    if (!button.textContent.trim()) found.push(`no name: ${button.outerHTML}`);
  const levels = [...document.querySelectorAll("h1, h2, h3, h4")].map(heading => Number(heading.tagName[1]));
  levels.forEach((level, i) => { if (level > (levels[i - 1] ?? 0) + 1) found.push(`heading ${level} after ${levels[i - 1]}`); });
  const ids = [...document.querySelectorAll("[id]")].map(node => node.id);
  ids.forEach((id, i) => { if (ids.indexOf(id) !== i) found.push(`id twice: ${id}`); });
  for (const node of document.querySelectorAll("[aria-labelledby]"))
    if (!document.getElementById(node.getAttribute("aria-labelledby"))) found.push(`labelled by nothing: ${node.outerHTML.slice(0, 60)}`);
  if (!document.documentElement.lang) found.push("no language");
  if (document.querySelectorAll("main").length !== 1) found.push("no main");
  if (document.documentElement.scrollWidth > innerWidth) found.push(`wider than the window: ${document.documentElement.scrollWidth}`);
  return found;
}"""
