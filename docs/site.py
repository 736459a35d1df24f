"""Hooks of MkDocs: the README is the site's first page, and the changelog one of its pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not in docs/."""
    for source, target in PAGES.items():
        files.append(File.generated(config, target, content=_moved((ROOT / source).read_text(), "docs/")))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links out of docs/ lead to those pages."""
    return _moved(markdown, "../")


def _moved(markdown: str, folder: str) -> str:
    for source, target in PAGES.items():
        markdown = markdown.replace(f"]({source}", f"]({target}").replace(f"](../{source}", f"]({target}")
    return markdown.replace("](docs/", "](") if folder == "docs/" else markdown
