"""Headers: what browsers may do with an answer."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "X-Robots-Tag": "noindex, nofollow",
}

TLS_ONLY = "max-age=31536000"

PAGE = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)

RQ_PAGE = (
    "default-src 'none'; script-src 'nonce-{nonce}' 'unsafe-eval'; style-src 'self'; "
    "style-src-attr 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
"""rq-dashboard's templates become functions in the browser, and some of its tags carry a style."""


def protect(headers: MutableHeaders, path: str, nonce: str, secure: bool) -> None:
    """Add to an answer's headers what it doesn't set itself; `path` is below the site's prefix."""
    for name, value in ALWAYS.items():
        headers.setdefault(name, value)
    policy = RQ_PAGE if path.startswith("/rq/") else PAGE
    headers.setdefault("Content-Security-Policy", policy.format(nonce=nonce))
    if not path.startswith(("/static/", "/rq/static/")):
        headers.setdefault("Cache-Control", "no-store")
    if secure:
        headers.setdefault("Strict-Transport-Security", TLS_ONLY)
