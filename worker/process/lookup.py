"""Lookup: which callables a worker performs, and how payloads and results are read and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from packmule.jobs import registry, wire
from packmule.jobs.job_type import JobType


class Invoked(NamedTuple):
    """What a payload asks for: a callable's type, and the arguments as they came."""

    type: JobType
    args: Sequence[Any]
    kwargs: Mapping[str, Any]


class Lookup(Protocol):
    """The one place where names from Redis become callables, and bytes become arguments."""

    def call(self, data: bytes) -> Invoked:
        """The call in the payload `data`. Raises if it is not valid, or not allowed."""

    def find(self, name: str) -> JobType:
        """The callable `name`. Raises if there is none, or if it is not allowed."""

    def encode(self, value: Any) -> bytes:
        """A result as it is stored. Raises `TypeError` or `ValueError` if it can't be."""


class Registered:
    """Registered functions only, called with JSON."""

    find = staticmethod(registry.find)
    encode = staticmethod(wire.encode_value)

    def call(self, data: bytes) -> Invoked:
        """The call in the payload `data`. Raises `InvalidPayload` or `NotRegistered`."""
        name, _, args, kwargs = wire.decode_call(data)
        return Invoked(registry.find(name), args, kwargs)
