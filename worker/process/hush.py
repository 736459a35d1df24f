"""Hush: a job's secrets are hidden in the lines that it logs and in the errors that end it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from packmule.jobs import wire
from packmule.jobs.context import Hear, Said
from packmule.jobs.job_type import JobType
from packmule.jobs.masking import MASK
from packmule.jobs.secrets import EACH_NAMED, part, texts_in
from packmule.worker.process.failure import Failure

SHORTEST = 4
"""Characters of a secret that is hidden within texts: a shorter one is a part of many words."""


class Hush:
    """Hides the secret arguments of one call in texts.

    >>> Hush(connect, ("ada", "hunter2"), {}).text("no such user: ada, hunter2")  # doctest: +SKIP
    'no such user: ada, (hidden)'
    """

    __slots__ = ("_texts",)

    def __init__(self, job: JobType, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        plain_args, plain_kwargs = msgspec.to_builtins((args, kwargs), str_keys=True, enc_hook=_plain)
        given = [(part(job.secrets, str(place)), value) for place, value in enumerate(plain_args)]
        given += [(part(job.secrets, name, EACH_NAMED), value) for name, value in plain_kwargs.items()]
        texts = {text for parts, value in given for text in texts_in(value, parts) if len(text) >= SHORTEST}
        for _ in range(2):
            texts |= {repr(text)[1:-1] for text in texts}  # as errors quote it, and what quotes errors
        self._texts = sorted(texts, key=len, reverse=True)

    def text(self, text: str) -> str:
        """`text` without secrets."""
        for each in self._texts:
            text = text.replace(each, MASK)
        return text

    def failure(self, failure: Failure) -> Failure:
        """`failure` without secrets."""
        return msgspec.structs.replace(failure, text=self.text(failure.text))

    def line(self, line: bytes) -> bytes:
        """A line of the job's log, as `jobs.said.line` wrote it, without secrets."""
        at, level, *said = msgspec.json.decode(line)
        return msgspec.json.encode((at, level, *map(self.value, said)))

    def hearing(self, hear: Hear) -> Hear:
        """`hear`, whose lines are without secrets."""
        return lambda *job: HushedSaid(hear(*job), self)

    def value(self, value: Any) -> Any:
        """`value`, whatever lists and mappings hold it, without secrets."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.value(name): self.value(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [*map(self.value, value)]
        return MASK if str(value) in self._texts else value


class HushedSaid:
    """Takes what a job says for `said`, which gets its lines without secrets."""

    __slots__ = ("_hush", "_said", "level")

    def __init__(self, said: Said, hush: Hush) -> None:
        self._said, self._hush, self.level = said, hush, said.level

    def line(self, line: bytes) -> None:
        """Take a line of its log."""
        self._said.line(self._hush.line(line))

    def chunk(self, chunk: bytes) -> None:
        """Take a chunk of its output, which is what the job is for: it stays as it is."""
        self._said.chunk(chunk)


def _plain(value: Any) -> Any:
    """What a function that may be given anything was given."""
    try:
        return wire.plain_argument(value)
    except TypeError:
        return None
