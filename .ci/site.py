"""A hook of mkdocs: the pages of the site that lie beside the docs, not among them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the pages, with links as they are from the folder of the docs."""
    for source, name in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
        for other, page in PAGES.items():
            text = re.sub(rf"\]\({re.escape(other)}(?=[#)])", f"]({page}", text)
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links from the docs to those pages lead to them."""
    for source, name in PAGES.items():
        markdown = re.sub(rf"\]\(\.\./{re.escape(source)}(?=[#)])", f"]({name}", markdown)
    return markdown
