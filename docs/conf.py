"""How the pages become a site: `sphinx-build -W docs .docs`. The pages are Markdown and read well without it."""

from __future__ import annotations

import re
from typing import Any

import lamson

project = "Lamson"
author = copyright = "the Lamson authors"
version = release = lamson.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"Lamson {release}"
html_static_path, html_css_files = ["_static"], ["lamson.css"]
html_show_copyright = html_show_sphinx = html_copy_source = False
pygments_style, pygments_dark_style = "friendly", "monokai"
highlight_language = "none"  # for blocks that name no language: what one types

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True


def to_restructured_text(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are written for a reader of the source: `code` in single backticks, and examples indented. Sphinx wants two, and `::`."""
    found: list[str] = []
    example = False
    for line in lines:
        indented = line.startswith("    ")
        if indented and not example:
            found += ["::", ""]
        example = indented or (example and not line.strip())
        found.append(line if example else _marked(line))
    lines[:] = found


def _marked(line: str) -> str:
    """Code between two backticks each; nothing else of the line means anything to reStructuredText."""
    parts = re.split(r"`([^`]+)`", line)
    return "".join(f"``{part}``" if number % 2 else re.sub(r"([*_|\\])", r"\\\1", part) for number, part in enumerate(parts))


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", to_restructured_text)
