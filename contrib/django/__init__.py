"""Packmule in Django: add `packmule.contrib.django` to `INSTALLED_APPS`."""
