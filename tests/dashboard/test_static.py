"""Static files: small, kept for a year by what is in them, and the licence of what others wrote beside it."""

from __future__ import annotations

import re

from packmule.dashboard.pages.addresses import STATIC, version
from packmule.tests.dashboard.pages_of_jobs import pages_for

MOST = {"packmule.css": 20_000, "packmule.js": 16_000, "idiomorph.js": 12_000, "icon.svg": 1_000}


def test_static_files_stay_small():
    sizes = {name: (STATIC / name).stat().st_size for name in MOST}
    assert all(sizes[name] <= most for name, most in MOST.items()), sizes


def test_the_stylesheet_asks_nobody_and_its_licences_are_told():
    style = (STATIC / "packmule.css").read_text()
    assert "@import" not in style
    assert not re.search(r"url\((?!['\"]?data:)", style)
    assert "Zero-Clause BSD" in (STATIC / "idiomorph.js").read_text()[:200]


def test_a_file_is_kept_for_a_year_only_under_the_address_of_its_content(client):
    with pages_for(client) as pages:
        address = f"/static/packmule.css?v={version('packmule.css')}"
        assert address in pages.get("/")
        kept = pages.browser.get(address)
        assert "immutable" in kept.headers["Cache-Control"]
        asked = pages.browser.get("/static/packmule.css?v=0000")
        assert asked.headers["Cache-Control"] == "no-cache"
        again = pages.browser.get("/static/packmule.css", headers={"If-None-Match": asked.headers["ETag"]})
        assert again.status_code == 304
        assert pages.browser.get("/static/../site.py").status_code == 404


def test_pages_are_compressed_for_browsers_that_can(client):
    with pages_for(client) as pages:
        answer = pages.browser.get("/", headers={"Accept": "text/html", "Accept-Encoding": "gzip"})
        assert answer.headers["Content-Encoding"] == "gzip"
