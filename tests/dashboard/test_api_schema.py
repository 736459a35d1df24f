"""The whole API against its own description: schemathesis asks for what it allows and for what it doesn't.

No answer is a mistake of ours, and each has the form that the description promises. `API_EXAMPLES=500` asks
for more than a short run does.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from redis import Redis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from packmule.dashboard.api import api as whole
from packmule.dashboard.api import openapi
from packmule.tests.dashboard.api_site import NAME, Api

EXAMPLES = int(os.environ.get("API_EXAMPLES", "5"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
STREAMS = [each.path for each in whole.ENDPOINTS if each.media_type != "application/json"]


def document() -> dict[str, Any]:
    return msgspec.json.decode(openapi.document(whole.ENDPOINTS, whole.PREFIX))


def known(api: Api) -> dict[str, str]:
    """Ids and names that lead somewhere, so that not every answer is a 404."""
    job = api.enqueue("boom")
    api.work()
    batch = api.http.post("/batches", json={}).json()["batch"]
    fingerprint = api.http.get("/errors", params={"state": "all"}).json()[0]["fingerprint"]
    return {"jobs": job, "batches": batch, "errors": fingerprint, "queues": "low", "scale": "default"}


OPERATIONS = [
    (path, method)
    for path, operations in document()["paths"].items()
    for method in operations
    if path not in STREAMS
]


@pytest.mark.parametrize("part", range(4))
def test_every_answer_is_what_the_description_promises(api: Api, part: int) -> None:
    ids = known(api)
    schema = schemathesis.openapi.from_dict(document())
    token = api.http.headers["authorization"]
    for path, method in OPERATIONS[part::4]:
        strategy = schema[path][method].as_strategy()

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @_given(strategy)
        def ask(case: Any) -> None:
            _lead_somewhere(case, ids)
            if case.path.endswith("/wait"):
                case.query = {"timeout": 0.01}
            case.call_and_validate(
                base_url=f"{api.site.address}/api/v1",
                headers={"Authorization": token},
                checks=CHECKS,
                timeout=60,
            )

        ask()
    assert api.http.get("/queues").status_code == 200


def _given(strategy: Any) -> Any:
    from hypothesis import given

    return given(case=strategy)


def _lead_somewhere(case: Any, ids: dict[str, str]) -> None:
    """Let every other request be for something that exists."""
    kind = case.path.split("/")[1]
    for name, value in (case.path_parameters or {}).items():
        if kind in ids and len(str(value)) % 2:
            case.path_parameters[name] = ids[kind]
    if isinstance(case.body, dict) and "job" in case.body and len(str(case.body)) % 2:
        case.body["job"] = NAME + "echo"


def test_the_description_names_every_operation_once(client: Redis) -> None:
    found = document()
    assert found["openapi"] == "3.1.0"
    operations = [each for path in found["paths"].values() for each in path.values()]
    assert len(operations) == len(whole.ENDPOINTS)
    names = [each["operationId"] for each in operations]
    assert len(set(names)) == len(names)
    for each in operations:
        assert each["summary"]
        assert {"401", "403", "429", "503"} <= each["responses"].keys()


def test_the_description_is_served_to_everybody(api: Api) -> None:
    with api.as_copy() as http:
        del http.headers["authorization"]
        answer = http.get("/openapi.json")
    assert answer.status_code == 200
    assert answer.json() == document()
    assert api.http.post("/openapi.json").status_code == 405
