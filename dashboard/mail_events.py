"""Events of mail providers: bounces and complaints that they post, each proven by its signature."""

from __future__ import annotations

import logging
import threading

import anyio.from_thread
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from packmule.config import SettingsError, secret_if_set
from packmule.coordination.limits.rate_limit import TokenBucket
from packmule.dashboard.acting import sender
from packmule.errors import Unavailable, UsageError
from packmule.jobs.email.crypto import NoCryptography
from packmule.jobs.email.delivery.http.events import PROVIDERS, InvalidEvents
from packmule.jobs.email.delivery.http.signatures import BadSignature, check_key
from packmule.jobs.email.suppression.feedback import feed

PREFIX = "/mail/events"

SECRET = "MAIL_EVENTS_"  # noqa: S105  the beginning of its name
"""How the names of the secrets begin that verify events; the provider's name follows."""

REFUSALS = "20/m"
"""Requests of one address that may be refused; with more, nothing that it sends is read."""

AT_ONCE = 4
"""Requests that one process takes at once, since one may have thousands of events."""

log = logging.getLogger("packmule.mail")
_turns = threading.BoundedSemaphore(AT_ONCE)


def event_keys() -> dict[str, str]:
    """The keys of providers whose events are taken. Raises `SettingsError` for one that verifies nothing."""
    found = {name: key for name in PROVIDERS if (key := secret_if_set(SECRET + name))}
    for name, key in found.items():
        try:
            check_key(name, key)
        except (UsageError, NoCryptography) as error:
            raise SettingsError(f"PACKMULE_SECRET_{SECRET}{name.upper()}: {error}") from None
    return found


def take(request: Request) -> Response:
    """`POST /mail/events/{provider}`: 200 once all is stored, so that a provider sends again what was not."""
    site, provider = request.app.state.site, request.path_params["provider"]
    key = site.event_keys.get(provider)
    if key is None:
        return _answer(404, "this dashboard accepts no events from this provider")
    refusals = TokenBucket(site.client, "mail-events", REFUSALS)
    if not (left := refusals.peek(sender(request))).allowed:
        return _answer(429, "too many requests from this address were refused", left.retry_after)
    if not _turns.acquire(blocking=False):
        return _answer(503, "other events are being processed", 1)
    try:
        body = anyio.from_thread.run(request.body)
        fed = feed(site.client, provider, body, request.headers, key, site.mail_keep)
    except (BadSignature, InvalidEvents) as error:
        if refusals.hit(sender(request)).remaining == 0:
            log.warning("%s sends too many events that are refused; the last: %s", sender(request), error)
        return _answer(403 if isinstance(error, BadSignature) else 400, str(error))
    except Unavailable as error:
        log.warning("events of %s can't be processed now: %s", provider, error)
        return _answer(503, "try again", 5)
    finally:
        _turns.release()
    if fed.suppressed or fed.resolved:
        kinds = ", ".join(f"{count} {kind}" for kind, count in fed.kinds.items())
        log.info(
            "events of %s: %s; %d addresses suppressed, %d unknown mails were sent",
            provider, kinds, len(fed.suppressed), fed.resolved,
        )  # fmt: skip
    return _answer(200, "taken")


def _answer(status: int, text: str, retry_after: float = 0) -> Response:
    headers = {"Retry-After": f"{int(retry_after) + 1}"} if retry_after else {}
    return PlainTextResponse(f"{text}\n", status, headers)


ROUTES = [Route(f"{PREFIX}/{{provider}}", take, methods=["POST"], name="mail_events")]
