"""How `make docs` builds the site from docs/*.md: offline, and with every warning an error."""

from __future__ import annotations

import re

from sphinx.application import Sphinx

from finsight import __version__

project = "FinSight"
copyright = "the FinSight contributors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 4  # `page.md#a-heading` leads to it, as where the repository is browsed
suppress_warnings = ["myst.header"]  # an example of a comment on a pull request begins below the first level

html_theme = "furo"
html_title = f"FinSight {__version__}"
html_copy_source = False
html_show_sphinx = False

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}


def prepare(app: Sphinx, page: str, source: list[str]) -> None:
    """Pages that index.md does not name stand where it says `@rest`. Markdown outside docs/ is no page: links to it hand out the file."""
    if page == "index":
        named = set(re.findall(r"^(?:.*<)?([\w/-]+)>?$", source[0], re.MULTILINE))
        rest = sorted(name for name in app.env.found_docs - named - {"index"} if "/" not in name)
        source[0] = source[0].replace("@rest", "\n".join(rest))
    source[0] = re.sub(r"\[([^\]]+)\]\((\.\./[^)#]+\.md)\)", lambda link: f"{{download}}`{link[1]} <{link[2]}>`", source[0])


def setup(app: Sphinx) -> None:
    """What Sphinx calls first."""
    app.connect("source-read", prepare)
