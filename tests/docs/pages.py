"""The documents as the tests read them: pages, tables, and code blocks that name the file they belong to."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {path.stem: path for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}

_PYTHON = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def page(name: str) -> str:
    """The text of `docs/<name>.md`, or of the README."""
    return PAGES[name].read_text()


def blocks(name: str, language: str) -> list[str]:
    """The code blocks of a page that are in `language`."""
    return re.findall(rf"^```{language}\n(.*?)^```", page(name), flags=re.DOTALL | re.MULTILINE)


def modules(name: str) -> dict[str, str]:
    """The Python files that a page shows: each block's first line is a comment with its file's name."""
    found: defaultdict[str, str] = defaultdict(str)
    for file, text in _PYTHON.findall(page(name)):
        found[file] += text
    assert len(blocks(name, "python")) == len(_PYTHON.findall(page(name))), f"{name}: name each block's file"
    return dict(found)


def rows(text: str) -> list[list[str]]:
    """The cells of a text's tables, without heads and rules, row by row."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    found = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    rules = [number for number, row in enumerate(found) if set("".join(row)) <= set("-: ")]
    return [row for number, row in enumerate(found) if number not in rules and number + 1 not in rules]


def named(cell: str) -> list[str]:
    """What a cell sets in backquotes."""
    return re.findall(r"`([^`]+)`", cell)
