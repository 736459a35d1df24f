"""One-time links of a served dashboard: used, they make an opener of addresses that is logged in."""

from __future__ import annotations

import urllib.parse
import urllib.request
from http.cookiejar import CookieJar

from packmule.tests.command_line import DEADLINE

SAME = {"Sec-Fetch-Site": "same-origin"}


def used(link: str, **fields: str) -> urllib.request.OpenerDirector:
    """What opens addresses with the cookies of whom `link` lets in; `fields` are those of its form."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    request = urllib.request.Request(link, urllib.parse.urlencode(fields).encode(), SAME)
    with opener.open(request, timeout=DEADLINE):
        return opener
