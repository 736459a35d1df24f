"""Settings: read once from the environment, frozen, and passed down as plain values."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from packmule import project, setting_values
from packmule.errors import UsageError
from packmule.plain_text import mask
from packmule.units import DAY, GIB, KIB, MIB, duration, size

PREFIX = "PACKMULE_"


class SettingsError(UsageError, ValueError):
    """A setting has an invalid value; the text names the variable and a valid form."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the environment can set; the defaults suit a developer's machine.

    Sizes are in bytes, durations in seconds. Create it with `Settings.from_env()`; override it with
    `dataclasses.replace(settings, processes=4)`.
    """

    redis_url: str | None = None
    data_dir: Path = Path(project.DATA)
    lock_urls: tuple[str, ...] = ()
    allow_eviction: bool = False
    queues: tuple[str, ...] = ("high", "default", "low")
    modules: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    schedules: Path | None = None
    webhooks: Path | None = None
    webhook_allow: tuple[str, ...] = ()
    processes: int = 2
    isolated: int | None = None
    image_memory: int | None = None
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
    clamd: str | None = None
    fetch_from: tuple[str, ...] = ()
    templates: str | None = None
    presets: Path | None = None
    images_keep: int = 30 * DAY
    images_bytes: int = 10 * GIB
    files_keep: int | None = None
    files_bytes: int | None = None
    pipelines: Path | None = None
    mail_urls: tuple[str, ...] = ()
    mail_to: str = ""
    mail_pace: str = ""
    mail_from: str = "packmule@localhost"
    mail_keep: int = 30 * DAY
    mail_return_path: str = ""
    bounces: tuple[str, ...] = ()
    dkim: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 9181
    hosts: tuple[str, ...] = ()
    trusted_proxy: tuple[str, ...] = ()
    prefix: str = ""
    user_header: str = ""
    health: str = ""
    api_rate: str = "6000/m"
    api_origins: tuple[str, ...] = ()
    max_job_bytes: int = 256 * KIB
    max_result_bytes: int = MIB
    max_file_bytes: int = 2 * GIB
    max_attachment_bytes: int = 25 * MIB
    max_pixels: int = 50_000_000
    max_unpacked_bytes: int = 8 * GIB
    max_members: int = 10_000

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read `PACKMULE_*` variables, and the `REDIS_URL` and `PORT` that platforms set.

        `environ` replaces the process's environment. Raises `SettingsError` for an invalid value.
        """
        env = environment(environ)
        found: dict[str, Any] = {"data_dir": project.data_dir()} if environ is None else {}
        for name, (_, parse) in VARIABLES.items():
            if variable := given(name, env):
                found[name] = _parsed(variable, env[variable].strip(), parse)
        return cls(**found)

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


def _parsed(variable: str, text: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        # A misspelt scheme doesn't say where in the URL of a mail server the key is.
        shown = "" if parse is setting_values.mail_urls else f"={mask(text)!r}"
        raise SettingsError(f"{variable}{shown}: {error}") from None


_defaults: dict[str, str] = {}
_sources: dict[str, tuple[str, str]] = {}
"""Of variables that were provided, where they come from and their values."""

_handed_on: set[str] = set()
"""Variables of this process's environment that were provided."""


def provide(defaults: Mapping[str, str], source: str, *, to_children: bool = False) -> None:
    """Let an application, or a file, give variables that the environment may override.

    It has to be called before settings are read. `source` says where they come from. With `to_children` all
    code of this process and its children sees them.

    >>> provide({"PACKMULE_QUEUES": "high, low"}, "the application")  # doctest: +SKIP
    """
    _defaults.update(defaults)
    _sources.update({name: (source, value) for name, value in defaults.items()})
    if to_children:
        _handed_on.update(defaults.keys() - os.environ.keys())
        os.environ.update({**defaults, **os.environ})


def take_back() -> None:
    """Undo what `provide` did for children, too: what is provided next may say other things."""
    for name in _handed_on:
        os.environ.pop(name, None)
        _defaults.pop(name, None)
    _handed_on.clear()


def source_of(variable: str) -> str:
    """Where a variable comes from: a `source` that provided it, or `environment`.

    A parent process may have provided it: so the environment of a child has it from the source, too.
    """
    source, value = _sources.get(variable, ("", ""))
    return source if source and os.environ.get(variable, value) == value else "environment"


VARIABLES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "redis_url": ("PACKMULE_REDIS_URL", str),
    "data_dir": ("PACKMULE_DATA_DIR", Path),
    "lock_urls": ("PACKMULE_LOCK_URLS", setting_values.lock_urls),
    "allow_eviction": ("PACKMULE_ALLOW_EVICTION", setting_values.truth),
    "queues": ("PACKMULE_QUEUES", setting_values.queue_names),
    "modules": ("PACKMULE_MODULES", setting_values.names),
    "hooks": ("PACKMULE_HOOKS", setting_values.names),
    "allow": ("PACKMULE_ALLOW", setting_values.names),
    "schedules": ("PACKMULE_SCHEDULES", Path),
    "webhooks": ("PACKMULE_WEBHOOKS", Path),
    "webhook_allow": ("PACKMULE_WEBHOOK_ALLOW", setting_values.names),
    "processes": ("PACKMULE_PROCESSES", setting_values.count),
    "isolated": ("PACKMULE_ISOLATED", setting_values.count),
    "image_memory": ("PACKMULE_IMAGE_MEMORY", size),
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
    "fetch_from": ("PACKMULE_FETCH_FROM", setting_values.url_beginnings),
    "clamd": ("PACKMULE_CLAMD", setting_values.clamd),
    "templates": ("PACKMULE_TEMPLATES", str),
    "presets": ("PACKMULE_PRESETS", Path),
    "images_keep": ("PACKMULE_IMAGES_KEEP", setting_values.keep),
    "images_bytes": ("PACKMULE_IMAGES_BYTES", size),
    "files_keep": ("PACKMULE_FILES_KEEP", setting_values.keep),
    "files_bytes": ("PACKMULE_FILES_BYTES", size),
    "pipelines": ("PACKMULE_PIPELINES", Path),
    "mail_urls": ("PACKMULE_MAIL_URL", setting_values.mail_urls),
    "mail_to": ("PACKMULE_MAIL_TO", str),
    "mail_pace": ("PACKMULE_MAIL_PACE", str),
    "mail_from": ("PACKMULE_MAIL_FROM", str),
    "mail_keep": ("PACKMULE_MAIL_KEEP", setting_values.keep),
    "mail_return_path": ("PACKMULE_MAIL_RETURN_PATH", str),
    "bounces": ("PACKMULE_BOUNCES", setting_values.names),
    "dkim": ("PACKMULE_DKIM", setting_values.names),
    "host": ("PACKMULE_HOST", str),
    "port": ("PACKMULE_PORT", setting_values.port),
    "hosts": ("PACKMULE_HOSTS", setting_values.host_names),
    "trusted_proxy": ("PACKMULE_TRUSTED_PROXY", setting_values.networks),
    "prefix": ("PACKMULE_PREFIX", setting_values.prefix),
    "user_header": ("PACKMULE_USER_HEADER", setting_values.header_name),
    "health": ("PACKMULE_HEALTH", setting_values.address),
    "api_rate": ("PACKMULE_API_RATE", str),
    "api_origins": ("PACKMULE_API_ORIGINS", setting_values.origins),
    "max_job_bytes": ("PACKMULE_MAX_JOB_BYTES", size),
    "max_result_bytes": ("PACKMULE_MAX_RESULT_BYTES", size),
    "max_file_bytes": ("PACKMULE_MAX_FILE_BYTES", size),
    "max_attachment_bytes": ("PACKMULE_MAX_ATTACHMENT_BYTES", size),
    "max_pixels": ("PACKMULE_MAX_PIXELS", setting_values.count),
    "max_unpacked_bytes": ("PACKMULE_MAX_UNPACKED_BYTES", size),
    "max_members": ("PACKMULE_MAX_MEMBERS", setting_values.count),
}
"""Setting: (its environment variable, its parser)."""

PLATFORM_VARIABLES = {"redis_url": "REDIS_URL", "port": "PORT"}
"""The variables in which hosting platforms provide a setting; ours takes precedence."""


def environment(environ: Mapping[str, str] | None = None) -> Mapping[str, str]:
    """The variables that settings are read from: `environ`, or this process's and what was provided."""
    return {**_defaults, **os.environ} if environ is None else environ


def given(name: str, env: Mapping[str, str]) -> str | None:
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


def secret_if_set(name: str, environ: Mapping[str, str] | None = None) -> str:
    """What `secret` returns; "" if neither variable is set.

    >>> secret_if_set("HOOKS", {})
    ''
    """
    env = os.environ if environ is None else environ
    variable = f"PACKMULE_SECRET_{name.upper()}"
    return secret(name, env) if env.get(variable) or env.get(f"{variable}_FILE") else ""


def notify_socket(environ: Mapping[str, str] | None = None) -> str:
    """Where systemd wants to be told that a service is ready, and that it stops; "" if it doesn't."""
    return (os.environ if environ is None else environ).get("NOTIFY_SOCKET", "")


def wants_colour(environ: Mapping[str, str] | None = None) -> bool:
    """Whether a terminal is to show colours: not if `NO_COLOR` is set (https://no-color.org)."""
    env = os.environ if environ is None else environ
    return not env.get("NO_COLOR") and env.get("TERM") != "dumb"


def first_environment() -> dict[str, str]:
    """This process's environment without what was provided, for a child that reads that again."""
    return child_environment(**dict.fromkeys(_handed_on))


def child_environment(**changes: str | None) -> dict[str, str]:
    """This process's environment for a child process, with `changes`; None removes a variable."""
    return {name: value for name, value in {**os.environ, **changes}.items() if value is not None}


def raw_environment() -> dict[bytes, bytes]:
    """This process's environment as the system has it, to compare it: many times as fast as its texts."""
    return dict(getattr(os.environ, "_data", os.environ))
