"""Which variables look like settings and are none, and where the values of settings come from."""

from __future__ import annotations

import pytest

from packmule.config import VARIABLES
from packmule.observe.check import declared
from packmule.observe.check.variables import origins, secrets_given, unknown


def test_the_origin_of_each_setting_is_the_variable_that_gives_it():
    found = origins({"REDIS_URL": "redis://a", "PORT": "1", "PACKMULE_PORT": "2", "PACKMULE_GRACE": " "})
    assert (found["redis_url"], found["port"], found["grace"]) == ("REDIS_URL", "PACKMULE_PORT", "default")
    assert found.keys() == VARIABLES.keys()


def test_each_variable_that_is_no_setting_is_named_with_the_one_that_it_resembles():
    given = {"PACKMULE_QUEUES": "a", "PACKMULE_MODULS": "shop", "PACKMULE_COLOUR": "red", "OTHER": "1"}
    assert unknown(given) == {"PACKMULE_MODULS": "PACKMULE_MODULES", "PACKMULE_COLOUR": None}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PACKMULE_SECRET_ANYTHING", "s3cret"),
        ("PACKMULE_SERVICE_HOST", "10.0.0.1"),
        ("PACKMULE_SERVICE_PORT", "80"),
        ("PACKMULE_DASHBOARD_SERVICE_PORT_HTTP", "80"),
        ("PACKMULE_DASHBOARD_PORT", "tcp://10.0.0.1:80"),
        ("PACKMULE_DASHBOARD_PORT_80_TCP_ADDR", "10.0.0.1"),
    ],
)
def test_secrets_and_the_addresses_that_kubernetes_gives_are_no_mistakes(name, value):
    assert unknown({name: value}) == {}


def test_a_port_that_is_no_address_is_one():
    assert unknown({"PACKMULE_WEB_PORT": "80"}) == {"PACKMULE_WEB_PORT": None}


def test_the_names_of_secrets_are_listed():
    assert secrets_given({"PACKMULE_SECRET_B": "1", "PACKMULE_SECRET_A": "2", "PACKMULE_SECRET_C": ""}) == [
        "PACKMULE_SECRET_A",
        "PACKMULE_SECRET_B",
    ]


def test_unknown_variables_alone_are_no_fault_of_the_check(monkeypatch):
    monkeypatch.setenv("PACKMULE_COLOUR", "red")
    assert declared.variables() == "ok, but no setting of Packmule: PACKMULE_COLOUR"
