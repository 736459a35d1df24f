"""The description of the API, OpenAPI 3.1, made of its operations and their structs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, get_type_hints

import msgspec

from packmule.dashboard.api.endpoint import JSON, Endpoint
from packmule.dashboard.api.idempotency import HEADER
from packmule.dashboard.api.json_options import JsonJobOptions
from packmule.dashboard.api.problems import MEDIA_TYPE, Problem
from packmule.dashboard.api.scopes import Scope
from packmule.dashboard.api.sse import MEDIA_TYPE as EVENTS

_TEMPLATE = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"\{(\w+)\}")

_ALWAYS = {401: "No token, or one that has ended.", 403: "The token lacks a scope.", 503: "Redis is away."}
_STATUSES = {
    400: "The request can't be read.",
    404: "Nothing has that id or name.",
    409: "The state does not allow it.",
    413: "It is too large.",
    415: "It is of another media type.",
    422: "A value is not valid; `errors` says which.",
    429: "Too many requests for this token.",
    507: "There is no space for it.",
    **_ALWAYS,
}


def document(endpoints: Sequence[Endpoint], prefix: str) -> bytes:
    """The description of `endpoints` under `prefix`, as JSON.

    >>> msgspec.json.decode(document([], "/api/v1"))["openapi"]
    '3.1.0'
    """
    types = [kind for each in endpoints for kind in (each.body, each.answer) if kind is not None]
    _, components = msgspec.json.schema_components(
        [*types, Problem, JsonJobOptions],
        schema_hook=lambda kind: {"title": "anything"},
        ref_template=_TEMPLATE,
    )
    components["JobOptions"]["additionalProperties"] = False
    paths: dict[str, dict[str, Any]] = {}
    for each in endpoints:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Packmule",
                "version": "1",
                "description": "Background jobs: enqueue, watch and steer them. Errors are problem details "
                "(RFC 9457). Whole numbers are exact, however large.",
                "license": {"name": "MIT", "identifier": "MIT"},
            },
            "servers": [{"url": prefix}],
            "security": [{"token": []}],
            "tags": [{"name": name} for name in dict.fromkeys(_tag(each) for each in endpoints)],
            "paths": paths,
            "components": {"schemas": components, "securitySchemes": _schemes()},
        }
    )


def _schemes() -> dict[str, Any]:
    scopes = ", ".join(Scope)
    return {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": f"A token of `packmule token add`, with some of the scopes {scopes}.",
        },
        "readToken": {
            "type": "apiKey",
            "in": "query",
            "name": "token",
            "description": "A read token, for EventSource, which sends no headers.",
        },
    }


def _tag(each: Endpoint) -> str:
    return each.path.split("/")[1]


def _operation(each: Endpoint) -> dict[str, Any]:
    summary, _, more = each.said.partition("\n\n")
    found: dict[str, Any] = {
        "operationId": f"{each.name}" if "_" in each.name else f"{each.name}_{_tag(each).replace('-', '_')}",
        "summary": summary.rstrip("."),
        "tags": [_tag(each)],
        "parameters": [*_in_path(each), *_in_query(each), *_in_headers(each)],
        "responses": _responses(each),
    }
    if each.scope:
        found["description"] = f"{more}\n\nNeeds the scope `{each.scope}`.".strip()
        found["security"] = [{"token": []}, *([{"readToken": []}] if each.takes_token else [])]
    if each.body is not None:
        found["requestBody"] = {"required": True, "content": {JSON: {"schema": _schema(each.body)}}}
    elif each.takes == "multipart/form-data":
        file = {"type": "object", "required": ["file"], "properties": {"file": {"type": "string"}}}
        found["requestBody"] = {"required": True, "content": {each.takes: {"schema": file}}}
    elif each.takes != JSON:
        found["requestBody"] = {"required": True, "content": {each.takes: {}}}
    return found


def _responses(each: Endpoint) -> dict[str, Any]:
    media = {each.media_type: {"schema": {"type": "string"}}}
    if each.media_type == JSON:
        media = {JSON: {"schema": _schema(each.answer)}}
    answer: dict[str, Any] = {"description": "Done."}
    if each.answer is not None or each.media_type == EVENTS:
        answer["content"] = media
    found = {str(each.status): answer}
    if each.name in ("enqueue", "copy_job"):
        found["200"] = {"description": "An equal job is alive: it is that one.", "content": media}
    if each.has_etag:
        found["304"] = {"description": "It has not changed."}
    if each.media_type == EVENTS:
        found["204"] = {"description": "The stream had ended before."}
    reading = {400, 413, 415} if each.body is not None or each.takes != JSON else set()
    problem = {MEDIA_TYPE: {"schema": {"$ref": _TEMPLATE.format(name="Problem")}}}
    for status in sorted({*_ALWAYS, 422, 429, *reading, *each.may}):
        found[str(status)] = {"description": _STATUSES[status], "content": problem}
    return found


def _in_path(each: Endpoint) -> Iterable[dict[str, Any]]:
    for name in _PARAMETER.findall(each.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _in_query(each: Endpoint) -> Iterable[dict[str, Any]]:
    if each.query is None:
        return
    schema = msgspec.json.schema_components([each.query], ref_template=_TEMPLATE)[1][each.query.__name__]
    for name in get_type_hints(each.query):
        found = schema["properties"][name]
        yield {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "schema": {key: value for key, value in found.items() if key != "description"},
            **({"description": found["description"]} if "description" in found else {}),
        }


def _in_headers(each: Endpoint) -> Iterable[dict[str, Any]]:
    if each.takes_key:
        text = "Makes the request safe to send again within a day."
        yield {"name": HEADER, "in": "header", "required": False, "description": text,
               "schema": {"type": "string", "minLength": 1, "maxLength": 255}}  # fmt: skip
    if each.media_type == EVENTS:
        text = "The id of the last event that came before."
        yield {"name": "Last-Event-ID", "in": "header", "required": False, "description": text,
               "schema": {"type": "string"}}  # fmt: skip


def _schema(kind: Any) -> dict[str, Any]:
    (found,), _ = msgspec.json.schema_components(
        [kind], schema_hook=lambda kind: {"title": "anything"}, ref_template=_TEMPLATE
    )
    return found
