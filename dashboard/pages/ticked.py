"""Ticked jobs: what is done with those that somebody has ticked in a list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.dashboard.acting import acting, go
from packmule.dashboard.forms import form
from packmule.dashboard.pages.addresses import address
from packmule.dashboard.rights import needs
from packmule.dashboard.viewer import Role
from packmule.errors import UsageError
from packmule.jobs import acts

MOST = 200
"""Jobs of one request; a page has fewer."""

MOST_REASONS = 3
"""Reasons that a message names."""

LONGEST_FIELD = 2_000


class Word(NamedTuple):
    """An act on a button: its name, its text, whether it destroys, and what has become of the jobs."""

    act: str
    text: str
    is_danger: bool
    done: str


WORDS = (
    Word("retry", "Retry", False, "queued again"),
    Word("run", "Run now", False, "queued to run now"),
    Word("cancel", "Cancel", True, "canceled"),
    Word("delete", "Delete", True, "deleted"),
)


def acts_for(status: str | None) -> list[tuple[str, str, bool]]:
    """The buttons of a list of jobs that all have a status, or any.

    >>> acts_for("finished")
    [('delete', 'Delete', True)]
    """
    return [word[:3] for word in WORDS if status is None or status in acts.ACTS[word.act].statuses]


@needs(Role.OPERATOR)
def act(request: Request) -> Response:
    """`POST /jobs`: do what the field `act` says to each `id`; each is looked at for itself."""
    given = form(request)
    name = str(given.get("act", ""))
    word = next((each for each in WORDS if each.act == name), None)
    if word is None:
        raise UsageError(f"no action is called {name:.40}: there are {', '.join(each.act for each in WORDS)}")
    ids = list(dict.fromkeys(unquote(each) for each in given.getlist("id") if isinstance(each, str)))
    if len(ids) > MOST:
        raise UsageError(f"{len(ids):,} jobs are selected: select at most {MOST}, or use a bulk action")
    kept = {field: str(given.get(field, ""))[:LONGEST_FIELD] or None for field in ("q", "cursor")}
    on = address(request, "jobs", **kept)
    if not ids:
        return go(request, on, "No job is selected.")
    with acting(request, f"job {name}") as subject:
        became = acts.perform(request.app.state.site.client, name, ids)
        done = [each.id for each in became if each.error is None]
        refused = Counter(acts.reason(each.id, each.error) for each in became if each.error is not None)
        subject["ids"] = done
        if refused:
            subject["refused"] = refused.total()
    return go(request, on, _said(word, done, refused))


def _said(word: Word, done: Sequence[str], refused: Counter[str]) -> str:
    """How many were done, and why others were not."""
    said = f"{len(done):,} {'job is' if len(done) == 1 else 'jobs are'} {word.done}."
    if refused:
        reasons = [f"{count:,} {reason}" for reason, count in refused.most_common(MOST_REASONS)]
        more = " and other reasons" if len(refused) > MOST_REASONS else ""
        were = "was" if refused.total() == 1 else "were"
        said += f" {refused.total():,} {were} refused: {'; '.join(reasons)}{more}."
    return said


ROUTES = [Route("/jobs", act, methods=["POST"], name="jobs_act")]
