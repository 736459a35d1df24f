"""One-time codes of an authenticator app (TOTP), each accepted once."""

from __future__ import annotations

import time

import pyotp
import segno

ISSUER = "Packmule"
PERIOD = 30
SLACK = 1
"""How many time steps a code may be early or late, because clocks differ."""

DIGITS = 6


def new_secret() -> str:
    """A new secret for an app: 160 random bits, in base 32."""
    return pyotp.random_base32()


def link(name: str, secret: str) -> str:
    """What an app reads from the QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name=ISSUER)


def qr_lines(text: str) -> str:
    """A QR code of `text` for a terminal."""
    import io  # noqa: PLC0415  only `packmule user totp` draws one

    drawn = io.StringIO()
    segno.make(text, error="m").terminal(drawn, compact=True)
    return drawn.getvalue().rstrip("\n")


def qr_svg(text: str) -> str:
    """A QR code of `text` as an SVG element without styles."""
    code = segno.make(text, error="m")
    return code.svg_inline(scale=5, border=4, dark="#000", light="#fff", omitsize=False, lineclass=None)


def step_of(secret: str, code: str, after: int, now: float | None = None) -> int | None:
    """The time step whose code this is, if it is later than the step `after`; otherwise None.

    Keep the step, and give it as `after` next time: no code is accepted twice, nor an older one.

    >>> step_of("JBSWY3DPEHPK3PXP", "000000", 0, now=59.0) is None
    True
    """
    digits = code.replace(" ", "")
    if len(digits) != DIGITS or not digits.isascii() or not digits.isdigit():
        return None
    current = int((time.time() if now is None else now) // PERIOD)
    made = pyotp.TOTP(secret)
    found = None
    for step in range(current - SLACK, current + SLACK + 1):
        if pyotp.utils.strings_equal(made.at(step * PERIOD), digits) and step > after:
            found = step
    return found
