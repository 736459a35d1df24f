"""Arguments and results that JSON lacks: models, dataclasses, decimals, times, enums, sets; real Pydantic."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, SecretStr

from packmule import chain, job, result
from packmule.dashboard import call_form
from packmule.jobs import reader
from packmule.jobs.arguments import schema
from packmule.jobs.client import Client
from packmule.jobs.job_type import InvalidCall, InvalidJob, job_type
from packmule.jobs.options import Options
from packmule.tests.command_line import CommandLine, complaint, environment_in
from packmule.tests.jobs import rich_jobs
from packmule.tests.jobs.rich_jobs import KeptLogin, Line, Login, Order, Parcel, Size

ID = UUID("11111111-2222-4333-8444-555555555555")
LINES = [Line(sku="a", quantity=2)]
ORDER = Order(id=ID, due=date(2026, 12, 24), unitPrice=Decimal("1.10"), lines=LINES, tags={"x"})
ORDER_JSON = {
    "id": str(ID), "due": "2026-12-24", "unitPrice": "1.10", "tags": ["x"],
    "lines": [{"sku": "a", "quantity": 2}],
}  # fmt: skip
PARCEL = Parcel(Decimal("2.50"), Size.LARGE, [ORDER])

PLAIN: dict[str, Any] = {
    "amount": Decimal("12345678901234567890.10"), "id": ID, "at": datetime(2026, 12, 1, 8, 30, tzinfo=UTC),
    "day": date(2026, 12, 1), "hour": time(8, 30), "span": timedelta(minutes=90), "size": Size.SMALL,
    "colors": {"red", "blue"}, "pair": (1, date(2026, 12, 2)), "by_day": {date(2026, 12, 3): Decimal("0.10")},
    "odds": frozenset({1, 3}),
}  # fmt: skip


@pytest.fixture
def shop(server, client, tmp_path: Path) -> CommandLine:
    return CommandLine(
        tmp_path, environment_in(tmp_path, server.url, "\nfrom packmule.tests.jobs.rich_jobs import *\n")
    )


def perform(shop: CommandLine) -> None:
    done = shop.run("worker", "--burst", "--processes", "1", "--no-scheduler", "-q", "default")
    assert done.returncode == 0, done.stderr


def test_models_arrive_whole_and_come_back_as_json_wherever_they_run(shop, client):
    jobs = Client(client)
    ship = jobs.enqueue(rich_jobs.ship, ORDER, more=[ORDER])
    pack, apart = jobs.enqueue(rich_jobs.pack, PARCEL), jobs.enqueue(rich_jobs.pack_apart, PARCEL)
    later = jobs.enqueue(rich_jobs.later, ORDER)
    parcel = {"weight": "2.50", "size": "l", "orders": [ORDER_JSON]}
    perform(shop)
    assert ship.result(5) == ORDER_JSON
    assert Order.model_validate_json(msgspec.json.encode(ship.result(5))) == ORDER
    assert (pack.result(5), apart.result(5)) == (parcel, {"parcel": parcel})
    assert later.result(5) == [ORDER_JSON]


def test_a_model_that_one_job_returns_is_handed_to_the_next(shop, client):
    flow = chain(rich_jobs.ship.call(ORDER), rich_jobs.ship.call(result)).enqueue(client=Client(client))
    perform(shop)
    assert flow.wait(5).counts.done == 2


def test_what_is_performed_at_once_gets_the_types_of_its_annotations():
    from packmule import testing

    with testing.inline():
        returned = rich_jobs.plain.enqueue(**PLAIN).result()
        assert rich_jobs.seen == [*PLAIN.values()]
        assert list(map(type, rich_jobs.seen)) == list(map(type, PLAIN.values()))
        rich_jobs.ship.enqueue(ORDER)
        assert rich_jobs.seen == [ORDER, None]
    assert returned == [
        "12345678901234567890.10", str(ID), "2026-12-01T08:30:00Z", "2026-12-01", "08:30:00", "PT5400S", "s",
        ["blue", "red"], [1, "2026-12-02"], {"2026-12-03": "0.10"}, returned[-1],
    ]  # fmt: skip
    assert sorted(returned[-1]) == [1, 3]


def test_a_call_is_found_by_its_model():
    from packmule import testing

    with testing.queue() as queue:
        rich_jobs.ship.enqueue(ORDER)
        queue.assert_enqueued(rich_jobs.ship, ORDER)


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ({**ORDER_JSON, "due": "soon"}, "argument order: due: Input should be a valid date"),
        ({**ORDER_JSON, "lines": [{"sku": "a", "quantity": 0}]}, "argument order: lines.0.quantity: Input"),
        ({**ORDER_JSON, "x\x1b[2J\n" * 500: 1}, "argument order: x [2J x [2J"),
        ({}, "argument order: id: Field required (and 3 more)"),
        (7, "argument order: input should be an object"),
        (None, "argument order"),
        ([[[]]], "argument order"),
        (b"\xff", "argument order"),
        (ORDER.model_copy(update={"due": "soon"}), "argument order: due: Input should be a valid date"),
        (Order.model_construct(id=ID), "argument order"),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_model_is_one_line_that_names_the_argument(client, order, said):
    for given in ((order,), (ORDER, [order])):
        with pytest.raises(InvalidCall) as caught:
            Client(client).enqueue(rich_jobs.ship, *given)
        text = f"{caught.value}"
        assert text.startswith("packmule.tests.jobs.rich_jobs.ship: ")
        assert said.removeprefix("argument order") in text
        assert ("argument more[0]" if len(given) > 1 else "argument order") in text
        assert text.isprintable()
        assert len(text) < 500
    assert client.llen("rq:queue:default") == 0


def test_a_model_that_json_would_change_is_refused_before_it_is_sent(client):
    class MoreKept(KeptLogin):
        user: str

    jobs = Client(client)
    with pytest.raises(InvalidCall, match="argument login: this KeptLogin would arrive changed"):
        jobs.enqueue(rich_jobs.log_in_kept, MoreKept(password=SecretStr("secret"), user="ada"))


def test_secret_texts_in_a_model_arrive_whole(client):
    jobs = Client(client)
    given = (rich_jobs.log_in, Login), (rich_jobs.log_in_kept, KeptLogin)
    for job_of_model, model in given:
        for login in (model(password=SecretStr("secret")), {"password": "secret"}):
            assert reader.read(client, jobs.enqueue(job_of_model, login)).args == [{"password": "secret"}]


def test_a_secret_of_a_result_stays_one(shop, client):
    handle = Client(client).enqueue(rich_jobs.leaks)
    perform(shop)
    assert handle.result(5) == {"password": "**********"}


def test_a_shell_gives_such_arguments_as_json_or_text(shop):
    order = msgspec.json.encode(ORDER_JSON).decode()
    call = (
        "enqueue",
        "call",
        "--wait",
        "packmule.tests.jobs.rich_jobs.pay",
        "amount=12345678901234567890.10",
    )
    with shop.started("worker", "--processes", "1", "--no-scheduler", "-q", "default"):
        assert "12345678901234567890.10 0.50" in shop.output(*call, "tip=0.50")
        said = shop.output(
            "enqueue", "call", "--wait", "packmule.tests.jobs.rich_jobs.ship", f"order={order}"
        )
        assert "1.10" in said
        texts = ["amount=1.50", f"id={ID}", "at=2026-12-01T08:30:00Z", "day=2026-12-01", "hour=08:30:00"]
        more = [
            "span=PT90M",
            "size=s",
            'colors=["red"]',
            'pair=[1,"2026-12-02"]',
            'by_day={"2026-12-03":"1"}',
        ]
        said = shop.output("enqueue", "call", "--wait", "packmule.tests.jobs.rich_jobs.plain", *texts, *more)
        assert "PT5400S" in said
    wrong = shop.run("enqueue", "call", "packmule.tests.jobs.rich_jobs.ship", 'order={"id": 1}')
    assert "argument order: id: UUID input should be" in complaint(wrong, 2)


def test_a_form_takes_such_arguments_and_names_their_defaults_as_json():
    def refill(
        day: date = date(2026, 1, 2), order: Order = ORDER, amount: Decimal = Decimal("1.50")
    ) -> None: ...

    hints = [each.hint for each in call_form.empty(job_type("shop.refill", refill, Options()))]
    assert hints[0].endswith('"2026-01-02" if empty')
    assert hints[1].endswith(
        f"{json.dumps(ORDER.model_dump(mode='json', by_alias=True, round_trip=True))} if empty"
    )
    assert hints[2].endswith('"1.50" if empty')
    read = call_form.read(rich_jobs.pay.job, {"arg:amount": "12345678901234567890.10"})
    assert read.call == (("12345678901234567890.10",), {})
    read = call_form.read(rich_jobs.ship.job, {"arg:order": '{"id": 1}'})
    assert read.fields[0].fault == "id: UUID input should be a string, bytes or UUID object (and 3 more)"
    for text in ("\ud800", "\x1b[2J", "[" * 5000):
        assert call_form.read(rich_jobs.pay.job, {"arg:amount": text}).fields[0].fault
        assert call_form.read(rich_jobs.ship.job, {"arg:order": json.dumps(text)}).fields[0].fault


def test_schemas_are_whole_in_themselves():
    for each in (rich_jobs.ship, rich_jobs.pack, rich_jobs.plain, rich_jobs.pay):
        found = schema(each.job.arguments)
        Draft202012Validator.check_schema(found)
    validator = Draft202012Validator(schema(rich_jobs.ship.job.arguments))
    assert validator.is_valid({"order": ORDER_JSON})
    assert not validator.is_valid({"order": ORDER_JSON | {"lines": [{"sku": 1, "quantity": 1}]}})
    validator = Draft202012Validator(schema(rich_jobs.pack.job.arguments))
    assert validator.is_valid({"parcel": {"weight": "1", "size": "s", "orders": [ORDER_JSON]}})
    assert not validator.is_valid({"parcel": {"weight": "1", "size": "s", "orders": [{}]}})


def test_models_of_one_name_keep_their_own_schemas():
    def model(quantity: Any, module: str) -> Any:
        line = type("Line", (BaseModel,), {"__annotations__": {"quantity": quantity}, "__module__": module})
        return type("Order", (BaseModel,), {"__annotations__": {"line": line}, "__module__": module})

    struct = msgspec.defstruct("Arguments", [("a", model(int, "one")), ("b", model(str, "two"))])
    validator = Draft202012Validator(schema(struct))
    assert validator.is_valid({"a": {"line": {"quantity": 1}}, "b": {"line": {"quantity": "x"}}})
    assert not validator.is_valid({"a": {"line": {"quantity": "x"}}, "b": {"line": {"quantity": "x"}}})


def unfit(path: Path) -> None: ...


def test_a_type_that_json_lacks_is_refused_at_the_decorator():
    with pytest.raises(InvalidJob, match=r"must be JSON values \(Path is not\)"):
        job(unfit)


def test_pydantic_is_not_loaded_for_jobs_without_it():
    code = "import sys, packmule.tests.jobs.sample_jobs; print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
