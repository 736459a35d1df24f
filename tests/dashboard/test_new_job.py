"""New jobs by hand: what a form is made of, which values it takes, and what a copy keeps."""

from __future__ import annotations

import enum
import html
import re
from datetime import date, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
import pytest

from packmule import job
from packmule.config import Settings
from packmule.dashboard import call_form
from packmule.dashboard.known_jobs import load
from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs import keys, reader, registry
from packmule.observe import audit
from packmule.tests.dashboard.pages_of_jobs import text_of
from packmule.tests.jobs import sample_jobs

pytestmark = pytest.mark.usefixtures("produce")


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


@job
def everything(
    text: str,
    count: int,
    share: float,
    loud: bool,
    day: date,
    at: datetime,
    fit: Literal["cover", 1],
    size: Size,
    items: list[int],
    anything: Any,
    maybe: int | None,
    either: int | str,
    small: Annotated[int, msgspec.Meta(ge=1)] = 7,
    span: timedelta | None = None,
    *rest: int,
    api_key: str = "default",
    **more: float,
) -> None:
    """Takes everything.

    And more.
    """


GOOD = {
    "text": " a\r\nb ", "count": str(2**70), "share": "0.5", "loud": "true", "day": "2026-12-01",
    "at": "2026-12-01T08:00", "fit": "1", "size": '"large"', "items": "[1, 2]",
    "anything": '{"a": 9007199254740993}', "maybe": "", "either": "seven", "small": "", "span": "",
    "rest": "[3, 4]", "api_key": "", "more": '{"x": 1.5}',
}  # fmt: skip


def given(**changes: str) -> dict[str, str]:
    return {f"arg:{name}": text for name, text in {**GOOD, **changes}.items()}


def faults(read: call_form.Read) -> dict[str, str]:
    return {field.name: field.fault for field in read.fields if field.fault}


def test_each_annotation_has_a_field_and_its_values_are_read():
    kinds = {field.name: field.kind for field in call_form.empty(everything.job)}
    assert kinds == {
        "text": "text", "count": "int", "share": "float", "loud": "bool", "day": "date", "at": "datetime",
        "fit": "choice", "size": "choice", "items": "json", "anything": "any", "maybe": "int",
        "either": "any", "small": "int", "span": "json", "rest": "json", "api_key": "text", "more": "json",
    }  # fmt: skip
    read = call_form.read(everything.job, given())
    assert faults(read) == {}
    assert read.call is not None
    args, kwargs = read.call
    assert kwargs == {"x": 1.5}
    assert [*args[:12]] == [
        " a\nb ", 2**70, 0.5, True, "2026-12-01", "2026-12-01T08:00:00", 1, "large", [1, 2],
        {"a": 9007199254740993}, None, "seven",
    ]  # fmt: skip
    assert args[12:] == (7, None, 3, 4)
    read = call_form.read(everything.job, given(text='""'))
    assert read.call is not None
    assert read.call[0][0] == ""
    assert call_form.filled(everything.job, [""], {})[0].text == '""'


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("count", "1.5", "not a whole number"),
        ("count", "", "it needs a value"),
        ("text", "  ", 'it needs a value: "" for an empty text'),
        ("count", "9" * 5000, "not a whole number"),
        ("share", "much", "not a number"),
        ("share", "nan", "not a number that JSON can hold"),
        ("loud", "yes", "that is not JSON"),
        ("day", "tomorrow", "RFC3339"),
        ("at", "8 o'clock", "RFC3339"),
        ("fit", '"other"', "Invalid enum value 'other'"),
        ("items", "[1, 2", "that is not JSON"),
        ("items", '["a"]', "Expected int, got str"),
        ("items", "[" * 5000, "that is not JSON"),
        ("small", "0", "Expected int >= 1"),
        ("rest", "3", "Expected array"),
        ("more", "[]", "Expected object"),
        ("span", "\ud800", "that is not JSON"),
    ],
)
def test_a_value_of_the_wrong_type_is_said_beside_its_field(name, text, fault):
    read = call_form.read(everything.job, given(**{name: text}))
    assert read.call is None
    assert list(faults(read)) == [name]
    assert fault in faults(read)[name]
    assert next(field.text for field in read.fields if field.name == name) == text


def test_fields_are_there_with_their_hints(pages):
    page = pages.get("/jobs/new", call=everything.job.name)
    shown = text_of(page)
    for words in (
        "Takes everything.",
        "7 if empty",
        "list[int] as JSON",
        "null if empty",
        "more positional arguments",
    ):
        assert words in shown, words
    assert "And more" not in shown
    assert (
        "default"
        not in page.partition('name="arg:api_key"')[2].partition("<small")[2].partition("</small>")[0]
    )
    assert everything.job.name in pages.get("/jobs/new", q=everything.job.name)
    assert "No function has these words" in pages.get("/jobs/new", q="no such")
    assert "shop.gone is not a registered job" in text_of(pages.get("/jobs/new", 404, call="shop.gone"))
    pages.post("/jobs/new", 404, call="shop.gone")


def test_a_form_enqueues_once_however_often_it_is_sent(pages, client):
    page = pages.get("/jobs/new", call=sample_jobs.add.job.name)
    (token,) = re.findall(r'name="job_id" value="(\w+)"', page)
    fields = {
        "call": sample_jobs.add.job.name,
        "job_id": token,
        "arg:a": "40",
        "arg:b": "2",
        "option:queue": "low",
    }
    for _ in range(2):
        assert "The job is enqueued." in pages.post("/jobs/new", **fields)
    assert client.llen(keys.queue_key("low")) == 1
    assert reader.read(client, token).args == [40, 2]
    assert [(each.action, each.who, each.subject["id"]) for each in audit.read(client)] == [
        ("job enqueue", "ada", token)
    ] * 2


def test_options_are_checked_beside_their_fields(pages, client):
    wrong = {"option:delay": "soon", "option:at": "noon", "option:priority": "high",
             "option:queue": "nowhere", "option:retries": "-1", "option:timeout": "x"}  # fmt: skip
    shown = text_of(pages.post("/jobs/new", 400, call=sample_jobs.noop.job.name, **wrong))
    for words in (
        "not a duration",
        "not a time",
        "from -100 to 100",
        "no queue is called that",
        "from 0 to 1,000,000",
    ):
        assert words in shown, words
    both = {"option:delay": "5m", "option:at": "2030-01-01T08:00"}
    assert "give delay or at, not both" in text_of(
        pages.post("/jobs/new", 400, call=sample_jobs.noop.job.name, **both)
    )
    page = pages.post(
        "/jobs/new",
        call=sample_jobs.noop.job.name,
        **{"option:at": "2030-01-01T08:00", "option:priority": "7"},
    )
    assert "scheduled" in text_of(page)
    assert "Priority 7" in text_of(page)


def test_an_equal_unique_job_is_led_to(pages, client):
    first = sample_jobs.invoice.enqueue(7)
    page = pages.post("/jobs/new", call=sample_jobs.invoice.job.name, **{"arg:account": "7"})
    assert "An equal job is already pending: this is it." in page
    assert f'<span class="id">{first}</span>' in page


def test_a_copy_keeps_what_was_not_changed_and_its_secrets(pages, client):
    id = everything.options(queue="low", priority=3).enqueue(
        "a", 2**70, 0.5, True, date(2026, 12, 1), datetime(2026, 12, 1), 1, Size.LARGE, [1],
        {"token": "s3cret"}, None, "12", api_key="s3cret", x=1.0,
    )  # fmt: skip
    page = pages.get("/jobs/new", copy=id)
    assert "s3cret" not in page
    fields = dict(re.findall(r'<input[^>]* name="([^"]+)" value="([^"]*)"', page))
    fields |= dict(re.findall(r'<textarea[^>]* name="([^"]+)"[^>]*>\n?([^<]*)</textarea>', page))
    fields |= dict(
        re.findall(
            r'<select[^>]* name="([^"]+)"[^>]*>(?:(?!</select>).)*?<option value="([^"]*)" selected', page
        )
    )
    fields = {name: html.unescape(value) for name, value in fields.items()}
    fields["option:queue"] = "low"
    fields["arg:text"] = "other"
    page = pages.post("/jobs/new", **fields)
    assert "The job is enqueued." in page
    copy = reader.read(client, fields["job_id"])
    original = reader.read(client, id)
    assert (copy.queue, copy.priority) == ("low", 3)
    assert copy.args[0] == "other"
    assert copy.args[1:] == original.args[1:]
    assert copy.kwargs == original.kwargs
    assert [each.action for each in audit.read(client)] == ["job copy"]


def test_a_copy_of_what_does_not_fit_or_is_not_known_here_is_refused_in_words(pages, client):
    id = sample_jobs.add.enqueue(1)
    client.hset(keys.job_key(id), "data", f'["{sample_jobs.add.job.name}",null,[1,2,3],{{}}]')
    assert "no longer fits it" in text_of(pages.get("/jobs/new", 400, copy=id))
    client.hset(keys.job_key(id), "data", '["shop.gone",null,[],{}]')
    assert "shop.gone is not a registered job" in text_of(pages.get("/jobs/new", 404, copy=id))
    pages.get("/jobs/new", 404, copy="nope")


def test_only_operators_enqueue(pages, client):
    pages.viewer = Viewer("bob", Role.VIEWER, may_see_payloads=True)
    pages.get("/jobs/new", 403)
    pages.post("/jobs/new", 403, call=sample_jobs.noop.job.name)
    assert not client.exists(keys.queue_key("default"))


def test_modules_that_can_not_be_imported_are_named(client):
    fault = load(Settings(modules=("packmule_has_no_such_module",)))
    assert "can't import packmule_has_no_such_module" in fault
    assert {*registry.READY} <= {*registry.names()}
    assert load(Settings()) == ""
