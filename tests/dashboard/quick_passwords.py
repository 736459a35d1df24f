"""Passwords hashed in a millisecond, for tests that hash many."""

from __future__ import annotations

import pytest
from argon2 import PasswordHasher

from packmule.dashboard.users import passwords

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture
def quick_passwords(monkeypatch):
    monkeypatch.setattr(passwords, "hasher", QUICK)
    monkeypatch.setattr(passwords, "NOBODYS", QUICK.hash("nobody's"))
