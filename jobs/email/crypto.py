"""The package that signs and verifies with keys of two parts, which not everybody needs."""

from __future__ import annotations

from importlib.util import find_spec

from packmule.errors import Error


class NoCryptography(Error):
    """The package `cryptography` is not installed."""


def require_cryptography(what: str) -> None:
    """Raise `NoCryptography` if `what` can't work, such as "DKIM"."""
    if find_spec("cryptography") is None:
        raise NoCryptography(f"{what} needs the package cryptography: pip install 'packmule[crypto]'")
