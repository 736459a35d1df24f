"""Secrets by annotation: found in all kinds of types, hidden wherever people look, whole for the job."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NewType, TypedDict

import msgspec
import pytest
from pydantic import BaseModel, Field, SecretStr

from packmule import Secret, job
from packmule.dashboard import call_form
from packmule.jobs import keys, reader, registry, watch
from packmule.jobs.client import Client
from packmule.jobs.copying import copy
from packmule.jobs.job_filter import JobFilter
from packmule.jobs.masking import MASK, masked_call, masked_job, masked_result
from packmule.jobs.search import search
from packmule.jobs.secrets import part, recorded, secrets_of, texts_in
from packmule.tests.command_line import CommandLine, environment_in

MORE = """
import logging
from typing import Annotated

from pydantic import BaseModel, SecretStr

from packmule import Secret


class Login(BaseModel):
    user: str
    code: SecretStr


@job
def connect(user: str, key: Annotated[str, Secret], note: str = "") -> str:
    logging.warning("connecting by %s", key)
    current.log("with its fields", key=key, user=user)
    raise ValueError(f"{user} was refused with {key!r}")


@job
def enter(login: Login, door: SecretStr) -> str:
    return f"{login.user} {login.code.get_secret_value()} {door.get_secret_value()}"


@job(isolate=True)
def apart(key: Annotated[str, Secret]) -> None:
    logging.warning("by %s", key)
    raise ValueError(key)


@job
async def later(key: Annotated[str, Secret]) -> None:
    raise LookupError(key)


@job
def answer() -> Annotated[str, Secret]:
    return "hunter2!"
"""


class Struct(msgspec.Struct, rename="camel"):
    the_code: Annotated[str, Secret]
    kept: int = 0


class Typed(TypedDict, total=False):
    code: typing.Required[Annotated[str, Secret()]]
    kept: int


class Pair(NamedTuple):
    kept: str
    code: Annotated[str, Secret]


class Model(BaseModel):
    code: SecretStr = Field(alias="theCode")
    marked: Annotated[str, Secret] = ""
    kept: int = 0


@dataclasses.dataclass
class Node:
    name: str
    code: Annotated[str, Secret] = ""
    below: list[Node] = dataclasses.field(default_factory=list)


Key = NewType("Key", SecretStr)


def found(kind: Any) -> Any:
    signature = inspect.Signature([inspect.Parameter("it", inspect.Parameter.POSITIONAL_OR_KEYWORD)])
    return secrets_of(signature, {"it": kind}).get("it", False)


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        (str, False),
        (Annotated[str, "a note"], False),
        (Annotated[str, Secret], True),
        (Annotated[str | None, Secret()], True),
        (Annotated[str, Secret] | None, True),
        (SecretStr, True),
        (Key, True),
        (SecretStr | None, True),
        (list[Annotated[str, Secret]], {"*": True}),
        (Mapping[str, SecretStr], {"*": True}),
        (tuple[int, SecretStr], {"*": True}),
        (Struct, {"theCode": True}),
        (list[Struct] | None, {"*": {"theCode": True}}),
        (Typed, {"code": True}),
        (Pair, {"1": True}),
        (Model, {"theCode": True, "code": True, "marked": True}),
        (dict[str, Struct | Typed], {"*": {"theCode": True, "code": True}}),
        (Node, {"code": True, "below": {"*": True}}),
        (list[int], False),
        (Any, False),
    ],
    ids=lambda value: re.sub(r" object at \w+", "", str(value)),
)
def test_secrets_are_found_in_all_kinds_of_types(kind, parts):
    assert found(kind) == parts


def test_arguments_are_known_by_name_and_by_position_and_the_rest_by_stars():
    def call(
        user: str, key: Annotated[str, Secret], *more: SecretStr, **named: Annotated[str, Secret]
    ) -> Annotated[str, Secret]: ...

    secrets = secrets_of(inspect.signature(call), typing.get_type_hints(call, include_extras=True))
    assert secrets == {
        "user": False, "0": False, "key": True, "1": True, "*": True, "**": True, "return": True,
    }  # fmt: skip
    args, kwargs = masked_call("gone.call", ["ada", "k", "m"], {"user": "u", "key": "k", "n": "s"}, secrets)
    assert (args, kwargs) == (["ada", MASK, MASK], {"user": "u", "key": MASK, "n": MASK})


def test_parts_of_a_value_are_hidden_and_the_others_stay():
    secrets = {"it": {"*": {"theCode": True}}}
    given = {"it": [{"theCode": "9f2c", "kept": 1}, {"theCode": None}], "other": {"theCode": "x"}}
    hidden = {"it": [{"theCode": MASK, "kept": 1}, {"theCode": None}], "other": {"theCode": "x"}}
    assert masked_call("gone.call", [], given, secrets) == ([], hidden)
    assert [*texts_in(given["it"], secrets["it"])] == ["9f2c"]


@pytest.mark.parametrize("spoilt", ["{", "[]", "7", '"x"', "\x80", "[" * 5000])
def test_a_record_whose_secrets_are_spoilt_shows_nothing_of_its_call(client, spoilt):
    id = Client(client).enqueue(plain, "ada", more=["b"])
    client.hset(keys.job_key(id), "secrets", spoilt)
    assert masked_job(reader.read(client, id)) == ([MASK], {"more": MASK})


@pytest.mark.parametrize("strange", ['{"0": 7, "more": "x"}', '{"0": {"*": []}, "more": null}'])
def test_strange_words_of_secrets_break_no_page(client, strange):
    id = Client(client).enqueue(plain, "ada", more=["b"])
    client.hset(keys.job_key(id), "secrets", strange)
    assert masked_job(reader.read(client, id))[0] == ["ada"]


@job
def plain(user: str, more: Sequence[str] = ()) -> None: ...


@pytest.fixture
def shop(server, client, tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, environment_in(tmp_path, server.url, MORE))


def perform(shop: CommandLine) -> str:
    done = shop.run("worker", "--burst", "--processes", "1", "--no-scheduler", "-v", "-q", "default")
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_no_list_log_page_error_or_search_shows_what_an_annotation_marks(shop, client):
    call = ("enqueue", "call", "shop.connect", "user=ada", "key=hunter2!")
    ids = [shop.output(*call), shop.output("enqueue", "call", "shop.apart", "key=hunter2!"),
           shop.output("enqueue", "call", "shop.later", "key=hunter2!")]  # fmt: skip
    log = perform(shop)
    for id in ids:
        info = reader.read(client, id)
        assert info.kwargs["key"] == "hunter2!", "the job gets it"
        assert info.error
        assert MASK in info.error
        assert "hunter2!" not in info.error
        assert (info.reason or "").endswith(MASK) or MASK in (info.reason or "")
    assert watch.logs(client, ids[0])[0].text == f"connecting by {MASK}"
    assert watch.logs(client, ids[0])[1].fields == {"key": MASK, "user": "ada"}
    assert watch.logs(client, ids[1])[0].text == f"by {MASK}"
    without = {"PACKMULE_MODULES": ""}
    seen = [
        *(shop.run("job", "show", id, "--traceback", **without).stdout for id in ids),
        shop.run("job", "list", **without).stdout,
        shop.run("job", "logs", ids[0], **without).stdout,
        shop.run("errors", **without).stdout,
        shop.run("errors", "show", str(reader.read(client, ids[0]).fingerprint), **without).stdout,
        shop.run("events", "--since", "1h", **without).stdout,
        shop.run("audit", **without).stdout,
        log,
    ]
    assert [text for text in seen if "hunter2!" in text] == []
    assert MASK in seen[0]
    assert "key=(hidden)" in seen[3]
    assert not search(client, JobFilter(args={"key": "hunter2!"})).jobs
    assert len(search(client, JobFilter(args={"user": "ada"})).jobs) == 1


def test_secret_texts_of_pydantic_arrive_whole_alone_and_in_models(shop, client):
    id = shop.output("enqueue", "call", "shop.enter", 'login={"user":"ada","code":"9f2c"}', "door=north")
    perform(shop)
    info = reader.read(client, id)
    assert info.result == "ada 9f2c north"
    args, kwargs = masked_job(info)
    assert (args, kwargs) == ([], {"login": {"user": "ada", "code": MASK}, "door": MASK})


def test_a_result_that_an_annotation_marks_is_hidden(shop, client):
    id = shop.output("enqueue", "call", "shop.answer")
    perform(shop)
    info = reader.read(client, id)
    assert (info.result, masked_result(info)) == ("hunter2!", MASK)
    assert "hunter2!" not in shop.output("job", "show", id)


@job
def lock(door: SecretStr, model: Model, nodes: list[Node] | None = None) -> None: ...


@job
def open_up(user: str, key: Annotated[str, Secret] = "dflt-s3cret", *rest: SecretStr) -> None: ...


def test_producers_give_secret_texts_or_plain_ones(client):
    jobs = Client(client)
    model = Model(theCode=SecretStr("9f2c"))
    for door in (SecretStr("north"), "north"):
        for given in (model, {"theCode": "9f2c"}):
            info = reader.read(client, jobs.enqueue(lock, door, given))
            assert info.args[0] == "north"
            assert info.args[1]["theCode"] == "9f2c"
            assert masked_job(info)[0][1]["theCode"] == MASK


def test_two_calls_with_other_secrets_are_no_equal_ones(client):
    jobs = Client(client)
    ids = [jobs.enqueue(lock.options(unique=True), "north", Model(theCode=SecretStr(code))) for code in "aab"]
    assert len(set(ids)) == 2


def test_a_form_hides_the_secrets_of_a_copy_and_its_defaults_and_keeps_them(client):
    type = registry.find(f"{__name__}.open_up")
    fields = call_form.filled(type, ["ada", "hunter2!", "n"], {})
    assert [each.text for each in fields] == ["ada", MASK, f'[\n  "{MASK}"\n]']
    assert "dflt" not in str(call_form.empty(type))
    given = {call_form.PREFIX + each.name: each.text for each in fields}
    read = call_form.read(type, given, (["ada", "hunter2!", "n"], {}))
    assert read.call == (("ada", "hunter2!", "n"), {})


def test_a_copy_hides_them_too(client):
    jobs = Client(client)
    id = copy(jobs, jobs.enqueue(open_up, "ada", "hunter2!"), {"user": "bob"})
    info = reader.read(client, id)
    assert (info.args, masked_job(info)[0]) == (["bob", "hunter2!"], ["bob", MASK])
    assert recorded(client.hget(keys.job_key(id), "secrets"))["key"] is True


def test_jobs_without_secrets_have_no_such_field(client):
    assert not client.hexists(keys.job_key(Client(client).enqueue(plain, "ada")), "secrets")
    assert part({}, "0") is False
