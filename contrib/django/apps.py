"""The Django app: it finds the project's jobs, reads its settings, and stands around each job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import module_has_submodule

from packmule import config, hooks
from packmule.contrib.django import connections

MODULES = ("jobs", "tasks")
"""The modules of an app in which jobs are looked for."""


class Packmule(AppConfig):  # type: ignore[misc]
    """Reads `PACKMULE`, a dict of settings without their prefix; the environment goes before it."""

    name = "packmule.contrib.django"
    label = "packmule"
    verbose_name = "Packmule"

    def ready(self) -> None:
        """Connect Packmule with the project, once its apps are loaded."""
        given = _given(getattr(settings, "PACKMULE", {}))
        config.provide({"PACKMULE_MODULES": ",".join(modules_of_apps()), **given}, "the Django settings")
        hooks.perform(connections.Connections)
        hooks.postponers.append(connections.at_commit)
        if hasattr(settings, "TASKS"):
            import_module("packmule.contrib.django.library")  # which registers the check of all backends


def modules_of_apps() -> Iterator[str]:
    """The modules `jobs` and `tasks` of all installed apps."""
    for app in apps.get_app_configs():
        if app.name != Packmule.name:
            yield from (f"{app.name}.{each}" for each in MODULES if module_has_submodule(app.module, each))


def _given(values: Mapping[str, Any]) -> dict[str, str]:
    """The variables that the project's settings stand for. Raises `ImproperlyConfigured`."""
    known = {variable.removeprefix("PACKMULE_"): variable for variable, _ in config.VARIABLES.values()}
    given = {}
    for name, value in values.items():
        if name not in known:
            near = get_close_matches(name, known, 1) or sorted(known)
            raise ImproperlyConfigured(f"PACKMULE has no setting {name!r}: did you mean {near[0]!r}?")
        if value is not None:  # what a variable that is not set gives
            listed = isinstance(value, list | tuple)
            given[known[name]] = ",".join(map(str, value)) if listed else str(value)
    return given
