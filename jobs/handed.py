"""Results handed on: what nodes of a flow return becomes arguments of another, in place of a placeholder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from packmule.coordination.redis.replies import UNREADABLE
from packmule.errors import UsageError
from packmule.jobs import reader, wire
from packmule.jobs.arguments import converted
from packmule.jobs.job_type import InvalidCall, JobType

MOST_TAKEN = 1000
"""Results that one node may take; `giving.lua` hands on no more."""

FEW = 3
"""Nodes that an error names."""


class Handed:
    """A placeholder, among a call's arguments, for what `nodes` (job ids) return: a list if `is_list`.

    Without nodes, it is what the parts before the call return. With a `field`, it is that field of each.
    """

    __slots__ = ("field", "is_list", "nodes")
    __iter__ = None  # or Python would ask for one field after another

    def __init__(
        self, nodes: Sequence[str] | None = None, is_list: bool = False, field: str | None = None
    ) -> None:
        self.nodes = nodes
        self.is_list = is_list
        self.field = field

    def __getitem__(self, field: str) -> Handed:
        """A field of what is returned: `flow.result(node)["path"]`."""
        return Handed(self.nodes, self.is_list, field)

    def __repr__(self) -> str:
        shown = "result" if self.nodes is None else f"flow.result({', '.join(self.nodes)})"
        return shown if self.field is None else f"{shown}[{self.field!r}]"


result = Handed()
"""What the part in front returns: of several parts, such as a group, the list of what each returns."""


class NotHanded(UsageError, ValueError):
    """A result that a node takes can't be handed on."""


class Take(msgspec.Struct, array_like=True, frozen=True):
    """Which results, or which field of them, take the place of an argument: a position or a name."""

    place: int | str
    names: list[str]
    is_list: bool = False
    field: str | None = None


_decode_takes = msgspec.json.Decoder(list[Take]).decode
_decode_given = msgspec.json.Decoder(dict[str, str]).decode


def has_handed(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call takes results."""
    return any(isinstance(each, Handed) for each in (*args, *kwargs.values()))


def validate(job: JobType, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Check a call but for its placeholders, whose values come later. Raises `InvalidCall`."""
    if job.name.startswith("__main__."):
        job.validate(args, kwargs)  # which refuses it
    try:
        bound = job.signature.bind(*args, **kwargs)
    except TypeError as error:
        raise job.invalid(error, kwargs) from None
    known = {name: value for name, value in bound.arguments.items() if not isinstance(value, Handed)}
    for name, value in known.items():
        if isinstance(value, tuple):  # those of *args
            known[name] = tuple(each for each in value if not isinstance(each, Handed))
    try:
        converted(known, job.arguments)
    except (TypeError, msgspec.ValidationError) as error:
        raise job.invalid(error, kwargs) from None


def without_handed(
    args: Sequence[Any], kwargs: Mapping[str, Any], names_of: Callable[[Handed], list[str]], is_group: bool
) -> tuple[list[Any], dict[str, Any], list[Take]]:
    """A call with None for each placeholder, and what comes there; `names_of` says which nodes' results.

    If the call is behind a part that `is_group`, `result` is a list.
    """
    takes = []

    def plain(place: int | str, value: Any) -> Any:
        if not isinstance(value, Handed):
            return value
        names = names_of(value)
        is_list = value.is_list or (value.nodes is None and (is_group or len(names) > 1))
        takes.append(Take(place, names, is_list, value.field))
        return None

    positional = [plain(place, value) for place, value in enumerate(args)]
    named = {name: plain(name, value) for name, value in kwargs.items()}
    return positional, named, takes


def filled(
    job: JobType, args: Sequence[Any], kwargs: Mapping[str, Any], takes: bytes, given: bytes | None
) -> tuple[list[Any], dict[str, Any]]:
    """A call of `job` with the results that it takes; a node that didn't finish hands on None.

    Raises `NotHanded` for a result that is too large or lacks the field that is taken, or if the record is
    corrupt, and `InvalidCall` for one that doesn't fit.
    """
    try:
        wanted, found = _decode_takes(takes), _decode_given(given or b"{}")
    except UNREADABLE as error:
        raise NotHanded(f"the results that the job takes can't be read: {error}") from None
    positional, named, sources = list(args), dict(kwargs), []
    for each in wanted:
        values = [_value(name, found.get(name), each.field) for name in each.names]
        value = values if each.is_list else values[0] if values else None
        if isinstance(each.place, str):
            named[each.place] = value
        elif 0 <= each.place < len(positional):
            positional[each.place] = value
        else:
            raise NotHanded(f"the job takes a result in place {each.place}, which its call doesn't have")
        sources += each.names
    try:
        job.validate(positional, named)
    except InvalidCall as error:
        several = "s" if len(sources) > 1 else ""
        raise InvalidCall(
            f"{error}; the call takes the result{several} of node{several} {_few(sources)}"
        ) from None
    return positional, named


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:FEW]) + (" ..." if len(names) > FEW else "")


def _value(name: str, text: str | None, field: str | None) -> Any:
    if text is None:
        return None
    if text == "?":
        raise NotHanded(f"the result of node {name} is no longer kept: give that job a longer result_ttl")
    if text == "!":
        raise NotHanded(
            f"the result of node {name} is too large to hand on (64 KiB each, 256 KiB in all): "
            "have it put the data in storage and return the path"
        )
    value = reader.collected(text)[0]
    if field is None:
        return value
    if not isinstance(value, dict) or field not in value:
        raise NotHanded(f"the result of node {name} has no {field}, which the job takes")
    return value[field]


def encode(takes: Sequence[Take]) -> str:
    """The field `takes` of a record."""
    return wire.encode_json(takes).decode()
