"""The site of documentation: it is built whole, with every page in its menu, and no link leads nowhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from packmule.tests.docs.pages import PAGES, ROOT

CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def build(site: Path, config: Path = ROOT / "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(config)]
    return subprocess.run(
        [*command, "--site-dir", str(site)], capture_output=True, text=True, timeout=200, check=False
    )


def test_the_site_is_built_with_every_page_and_a_search(tmp_path):
    done = build(tmp_path)
    assert done.returncode == 0, done.stderr
    menu = [page for group in CONFIG["nav"] for pages in group.values() for page in pages]
    shown = {page for page in menu if len(page) > 1 and page.endswith(".md")}
    assert {f"{name}.md" for name in PAGES if name != "README"} <= shown
    for page in shown:
        assert (tmp_path / page.replace(".md", ".html")).is_file()
    first = (tmp_path / "index.html").read_text()
    assert "Thirty seconds to a running job" in first
    assert 'href="operations.html"' in first
    assert (tmp_path / "search" / "search_index.json").stat().st_size > 100_000
    assert not list(tmp_path.rglob("*.py"))
    assert not list(tmp_path.rglob("__pycache__"))


def test_the_site_loads_nothing_from_elsewhere_and_colours_code_itself(tmp_path):
    build(tmp_path)
    pages = {path.name: path.read_text() for path in tmp_path.glob("*.html")}
    for name, text in pages.items():
        loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=\"([^\"]+)", text)
        assert not [each for each in loaded if "//" in each], name
    assert '<span class="nd">@job</span>' in pages["jobs.html"]


@pytest.mark.parametrize("link", ["nowhere.md", "index.md#nowhere"])
def test_a_link_that_leads_nowhere_fails(link, tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text(f"# Here\n\n[there]({link})\n")
    ours = {name: CONFIG[name] for name in ("site_name", "strict", "theme", "validation")}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(ours))
    done = build(tmp_path / "site", tmp_path / "mkdocs.yml")
    assert done.returncode == 1
    assert "nowhere" in done.stderr


def test_the_list_for_assistants_names_every_page():
    listed = re.findall(r"\]\((?:docs/)?([\w-]+)\.md\)", (ROOT / "llms.txt").read_text())
    assert sorted(listed) == sorted(name for name in PAGES if name not in {"README", "CHANGELOG"})
