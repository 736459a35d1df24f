"""A lookup that trusts all: whatever RQ would call, from payloads of any of RQ's serializers."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
from rq.exceptions import DeserializationError
from rq.job import Job
from rq.serializers import Serializer
from rq.utils import import_attribute
from rq.webhook import Webhook

from packmule.jobs.job_type import JobType, Traits
from packmule.jobs.options import Options
from packmule.jobs.registry import Invoked


class Anything(JobType):
    """Any callable, with any arguments."""

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments as they came."""
        return tuple(args), dict(kwargs)


class TrustAll:
    """Names are imported, payloads and results are `serializer`'s: who can enqueue can run any code."""

    def __init__(self, serializer: Serializer) -> None:
        self.serializer = serializer

    def call(self, data: bytes) -> Invoked:
        """The call in a payload, of a method of an object too. Raises what importing and reading it does."""
        with suppress(zlib.error):
            data = zlib.decompress(data)
        try:
            name, instance, args, kwargs = self.serializer.loads(data)
        except Exception as error:
            raise DeserializationError from error
        if instance:
            return Invoked(_type_of(name, getattr(instance, name)), args, kwargs)
        return Invoked(self.find(name), args, kwargs)

    def find(self, name: str) -> JobType:
        """The callable `name`, imported. Raises what importing does."""
        return _type_of(name, import_attribute(name))

    def encode(self, value: Any) -> bytes:
        """A result as the serializer writes it. Raises what the serializer does."""
        return self.serializer.dumps(value)

    def decode(self, data: bytes) -> Any:
        """The result that `encode` wrote. Raises what the serializer does."""
        return self.serializer.loads(data)

    def send(self, webhook: Webhook, job: Job, reason: str | None) -> None:
        """Let RQ send it, wherever it leads."""
        webhook.send(job, exc_string=reason)


_ANY: Final = inspect.signature(lambda *args, **kwargs: None)


def _type_of(name: str, function: Callable[..., Any]) -> JobType:
    is_async = inspect.iscoroutinefunction(function)
    return Anything(name, function, Options(), Traits(), _ANY, msgspec.Struct, is_async)
