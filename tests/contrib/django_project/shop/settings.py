"""A small project: one app with jobs and tasks, one database, in a file or behind a pool of connections."""

import importlib.util
import os
from pathlib import Path

SECRET_KEY = "of a test"
USE_TZ = True
INSTALLED_APPS = ["orders", "packmule.contrib.django"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": Path(os.environ["SHOP_DATA"], "shop.sqlite3"),
        "OPTIONS": {"timeout": 20},
    }
}
if "SHOP_POSTGRES" in os.environ:
    DATABASES["default"] = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "shop",
        "HOST": os.environ["SHOP_POSTGRES"],
        "OPTIONS": {"pool": True},
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PACKMULE = {"REDIS_URL": os.environ["SHOP_REDIS"], "QUEUES": ["high", "default", "low"]}
TASKS = {
    "default": {
        "BACKEND": "packmule.contrib.django.tasks.PackmuleBackend",
        "QUEUES": ["default", "high"],
    }
}
if importlib.util.find_spec("django.tasks") is None:
    INSTALLED_APPS.append("django_tasks")
