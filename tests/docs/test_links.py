"""Links lead somewhere, files that are named exist, and lines fit."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

import pytest

from packmule.tests.docs.pages import PAGES, ROOT

LONGEST_README = 200
WIDTH = 100
MADE_OR_YOURS = re.compile(
    r"^(\.packmule|\.venv|\.env|build|shop|examples)\b|^(Procfile|main\.py|schedules\.toml)$"
)

DOCUMENTS = {**PAGES, "CHANGELOG": ROOT / "CHANGELOG.md"}


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    path = DOCUMENTS[name]
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", path.read_text()):
        if not target.startswith("http"):
            file = path.parent / target if target else path
            assert file.exists(), f"{name}: {target}"
            assert not anchor or anchor in anchors(file.read_text()), f"{name}: {target}#{anchor}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_lines_fit(name):
    lines, is_code = DOCUMENTS[name].read_text().splitlines(), False
    for number, line in enumerate(lines, 1):
        is_code ^= line.startswith("```")
        assert len(line) <= WIDTH or line.startswith("|"), f"{name}, line {number}: {len(line)} characters"
    assert name != "README" or len(lines) <= LONGEST_README


@cache
def checked_out() -> set[str]:
    """The files of the checkout, without those of the environment and what was built."""
    found: set[str] = set()
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [each for each in folders if each not in {".venv", ".git", "build"}]
        found.update((Path(folder).relative_to(ROOT) / name).as_posix() for name in names)
    return found


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_a_page_names_exist(name):
    files = checked_out()
    names = {file.rpartition("/")[2] for file in files}
    for span in re.findall(r"`([^`\n]+)`", DOCUMENTS[name].read_text()):
        for text in re.findall(r"[\w./-]+\.(?:py|lua|md|toml|yml)\b", span):
            found = text in files if "/" in text else text in names
            assert found or MADE_OR_YOURS.match(text), f"{name}: {text}"
