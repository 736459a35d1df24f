"""Settings: read once from the environment, frozen, and passed down as plain values."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from packmule import setting_values
from packmule.errors import UsageError
from packmule.units import DAY, GIB, KIB, MIB, duration, size

_PREFIX = "PACKMULE_"

_PASSWORD = re.compile(r"(://[^:/?#]*):.*@", re.DOTALL)
"""Up to the last @, so that a password with an unescaped @ in it is hidden too."""

_KEY = re.compile(r"\b(ses|postmark|mailgun|sendgrid|resend)://(?:\S*@)?[^@?\s]*(\?[^@\s]*)?")
"""A mail provider's URL, whose key may be all that it has: only its options are shown."""

_SECRET_OPTION = re.compile(
    r"([?&][\w-]*(?:passw|secret|token|signature|api_?key)[\w-]*=)[^&#\s]*", re.IGNORECASE
)


class SettingsError(UsageError, ValueError):
    """A setting has an invalid value; the text names the variable and a valid form."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the environment can set; the defaults suit a developer's machine.

    Sizes are in bytes, durations in seconds. Create it with `Settings.from_env()`; override it with
    `dataclasses.replace(settings, processes=4)`.
    """

    redis_url: str | None = None
    data_dir: Path = Path(".packmule")
    lock_urls: tuple[str, ...] = ()
    allow_eviction: bool = False
    queues: tuple[str, ...] = ("high", "default", "low")
    modules: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    schedules: Path | None = None
    webhooks: Path | None = None
    webhook_allow: tuple[str, ...] = ()
    processes: int = 2
    grace: float = 25.0
    unknown_for: float = 600.0
    machine: str = ""
    release: str = ""
    environment: str = "development"
    log_format: str = "text"
    log_level: str = "info"
    job_log_level: str = "info"
    memory_high_water: str = ""
    index_jobs: int = 100_000
    tracing: str = "none"
    storage: str | None = None
    templates: str | None = None
    mail_urls: tuple[str, ...] = ()
    mail_to: str = ""
    mail_pace: str = ""
    mail_from: str = "packmule@localhost"
    mail_keep: int = 30 * DAY
    host: str = "127.0.0.1"
    port: int = 9181
    hosts: tuple[str, ...] = ()
    trusted_proxy: tuple[str, ...] = ()
    prefix: str = ""
    user_header: str = ""
    api_rate: str = "6000/m"
    api_origins: tuple[str, ...] = ()
    max_job_bytes: int = 256 * KIB
    max_result_bytes: int = MIB
    max_file_bytes: int = 2 * GIB
    max_attachment_bytes: int = 25 * MIB
    max_pixels: int = 200_000_000

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read `PACKMULE_*` variables, and the `REDIS_URL` and `PORT` that platforms set.

        `environ` replaces the process's environment. Raises `SettingsError` for an invalid value.
        """
        env = os.environ if environ is None else environ
        given: dict[str, Any] = {}
        for name, (_, parse) in VARIABLES.items():
            if variable := _given(name, env):
                given[name] = _parsed(variable, env[variable].strip(), parse)
        return cls(**given)

    @property
    def storage_url(self) -> str:
        """Where jobs read and write files: a local folder or an fsspec URL."""
        return self.storage or str(self.data_dir / "files")

    def masked(self) -> dict[str, str]:
        """Each setting as text to display: passwords in URLs are replaced by `***`."""
        shown = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: _shown(value) for name, value in shown.items()}


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return ", ".join(map(mask, value)) if isinstance(value, tuple) else mask(str(value))


def mask(url: str) -> str:
    """`url` without its password: `mask("redis://:s3cret@host/0") == "redis://:***@host/0"`."""
    hidden = _PASSWORD.sub(r"\1:***@", _KEY.sub(r"\1://***\2", url))
    return _SECRET_OPTION.sub(r"\1***", hidden)


def _parsed(variable: str, text: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        # A misspelt scheme doesn't say where in the URL of a mail server the key is.
        shown = "" if parse is setting_values.mail_urls else f"={mask(text)!r}"
        raise SettingsError(f"{variable}{shown}: {error}") from None


VARIABLES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "redis_url": ("PACKMULE_REDIS_URL", str),
    "data_dir": ("PACKMULE_DATA_DIR", Path),
    "lock_urls": ("PACKMULE_LOCK_URLS", setting_values.lock_urls),
    "allow_eviction": ("PACKMULE_ALLOW_EVICTION", setting_values.truth),
    "queues": ("PACKMULE_QUEUES", setting_values.queue_names),
    "modules": ("PACKMULE_MODULES", setting_values.names),
    "allow": ("PACKMULE_ALLOW", setting_values.names),
    "schedules": ("PACKMULE_SCHEDULES", Path),
    "webhooks": ("PACKMULE_WEBHOOKS", Path),
    "webhook_allow": ("PACKMULE_WEBHOOK_ALLOW", setting_values.names),
    "processes": ("PACKMULE_PROCESSES", setting_values.count),
    "grace": ("PACKMULE_GRACE", duration),
    "unknown_for": ("PACKMULE_UNKNOWN_FOR", duration),
    "machine": ("PACKMULE_MACHINE", setting_values.machine),
    "release": ("PACKMULE_RELEASE", setting_values.release),
    "environment": ("PACKMULE_ENV", setting_values.environment),
    "log_format": ("PACKMULE_LOG_FORMAT", setting_values.log_format),
    "log_level": ("PACKMULE_LOG_LEVEL", setting_values.log_level),
    "job_log_level": ("PACKMULE_JOB_LOG_LEVEL", setting_values.job_log_level),
    "tracing": ("PACKMULE_TRACING", setting_values.tracing),
    "memory_high_water": ("PACKMULE_MEMORY_HIGH_WATER", setting_values.high_water),
    "index_jobs": ("PACKMULE_INDEX_JOBS", setting_values.count),
    "storage": ("PACKMULE_STORAGE", str),
    "templates": ("PACKMULE_TEMPLATES", str),
    "mail_urls": ("PACKMULE_MAIL_URL", setting_values.mail_urls),
    "mail_to": ("PACKMULE_MAIL_TO", str),
    "mail_pace": ("PACKMULE_MAIL_PACE", str),
    "mail_from": ("PACKMULE_MAIL_FROM", str),
    "mail_keep": ("PACKMULE_MAIL_KEEP", setting_values.mail_keep),
    "host": ("PACKMULE_HOST", str),
    "port": ("PACKMULE_PORT", setting_values.port),
    "hosts": ("PACKMULE_HOSTS", setting_values.host_names),
    "trusted_proxy": ("PACKMULE_TRUSTED_PROXY", setting_values.networks),
    "prefix": ("PACKMULE_PREFIX", setting_values.prefix),
    "user_header": ("PACKMULE_USER_HEADER", setting_values.header_name),
    "api_rate": ("PACKMULE_API_RATE", str),
    "api_origins": ("PACKMULE_API_ORIGINS", setting_values.origins),
    "max_job_bytes": ("PACKMULE_MAX_JOB_BYTES", size),
    "max_result_bytes": ("PACKMULE_MAX_RESULT_BYTES", size),
    "max_file_bytes": ("PACKMULE_MAX_FILE_BYTES", size),
    "max_attachment_bytes": ("PACKMULE_MAX_ATTACHMENT_BYTES", size),
    "max_pixels": ("PACKMULE_MAX_PIXELS", setting_values.count),
}
"""Setting: (its environment variable, its parser)."""

PLATFORM_VARIABLES = {"redis_url": "REDIS_URL", "port": "PORT"}
"""The variables in which hosting platforms provide a setting; ours takes precedence."""


DEFAULT = "default"


def origins(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Where each setting's value comes from: the variable that gives it, or `default`.

    >>> origins({"REDIS_URL": "redis://jobs"})["redis_url"]
    'REDIS_URL'
    """
    env = os.environ if environ is None else environ
    return {name: _given(name, env) or DEFAULT for name in VARIABLES}


def secrets_given(environ: Mapping[str, str] | None = None) -> list[str]:
    """The names of the variables that give secrets, never what is in them.

    >>> secrets_given({"PACKMULE_SECRET_HOOKS": "s3cret", "PACKMULE_ENV": "production"})
    ['PACKMULE_SECRET_HOOKS']
    """
    env = os.environ if environ is None else environ
    return sorted(name for name, value in env.items() if name.startswith(f"{_PREFIX}SECRET_") and value)


def _given(name: str, env: Mapping[str, str]) -> str | None:
    """The variable that gives a setting's value, if one does."""
    candidates = VARIABLES[name][0], PLATFORM_VARIABLES.get(name, "")
    return next((each for each in candidates if env.get(each, "").strip()), None)


def secret(name: str, environ: Mapping[str, str] | None = None) -> str:
    """The secret `name`: `PACKMULE_SECRET_<NAME>`, or the contents of the file `PACKMULE_SECRET_<NAME>_FILE`.

    Raises `SettingsError` if neither is set.
    """
    env = os.environ if environ is None else environ
    variable = f"PACKMULE_SECRET_{name.upper()}"
    if text := env.get(variable, ""):
        return text
    path = env.get(f"{variable}_FILE", "")
    if not path:
        raise SettingsError(f"there is no secret {name!r}: set {variable}, or {variable}_FILE to a path")
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{variable}_FILE: {path} can't be read: {type(error).__name__}") from None


def misspelt(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables that look like those of settings and are none, each with the one that it resembles."""
    from difflib import get_close_matches  # noqa: PLC0415  only `packmule check` needs it

    known = {variable.removeprefix(_PREFIX): variable for variable, _ in VARIABLES.values()}
    env = os.environ if environ is None else environ
    names = [name.removeprefix(_PREFIX) for name in env if name.startswith(_PREFIX)]
    near = {name: get_close_matches(name, known, 1, 0.8) for name in names if name not in known}
    return {_PREFIX + name: known[found[0]] for name, found in near.items() if found}


def wants_colour(environ: Mapping[str, str] | None = None) -> bool:
    """Whether a terminal is to show colours: not if `NO_COLOR` is set (https://no-color.org)."""
    env = os.environ if environ is None else environ
    return not env.get("NO_COLOR") and env.get("TERM") != "dumb"


def child_environment(**changes: str | None) -> dict[str, str]:
    """This process's environment for a child process, with `changes`; None removes a variable."""
    environment = {**os.environ, **changes}
    return {name: value for name, value in environment.items() if value is not None}
