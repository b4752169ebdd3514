"""The OpenAPI document (3.1) of the admin API, made of the table of endpoints and the types that it names."""

from typing import Any

import msgspec

from gateway.console.admin_answers import ErrorTold
from gateway.console.admin_endpoints import ENDPOINTS, Endpoint

_ERRORS = {
    "400": "The body or the query can't be used; the text names the field.",
    "403": "The admin token is missing or wrong.",
    "404": "There is nothing of this name.",
    "409": "It is there already, or is kept elsewhere.",
    "503": "The ledger does not answer.",
}


def document(prefix: str, version: str) -> dict[str, Any]:
    """The document. `prefix` is where Tollway's own endpoints are, `/_tollway` for instance."""
    types = [ErrorTold, *{one.told for one in ENDPOINTS}, *{one.body for one in ENDPOINTS if one.body is not None}]
    _, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    paths: dict[str, dict[str, Any]] = {}
    for one in ENDPOINTS:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tollway's admin API", "version": version},
        "servers": [{"url": f"{prefix}/admin"}],
        "security": [{"admin_token": []}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {"admin_token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(one: Endpoint) -> dict[str, Any]:
    told: dict[str, Any] = {"description": "Done.", "content": _json(one.told)}
    operation: dict[str, Any] = {
        "operationId": _operation_id(one),
        "summary": one.does,
        "responses": {
            str(one.status): told,
            **{status: {"description": text, "content": _json(ErrorTold)} for status, text in _ERRORS.items()},
        },
    }
    parameters = _parameters(one)
    if parameters:
        operation["parameters"] = parameters
    if one.body is not None:
        required = bool(_fields(one.body).get("required"))
        operation["requestBody"] = {"required": required, "content": _json(one.body)}
    return operation


def _operation_id(one: Endpoint) -> str:
    words = [word for word in one.path.split("/") if word and not word.startswith("{")]
    return "_".join([one.method.lower(), *words, *([f"by_{one.name}"] if one.path.endswith("}") else [])])


def _parameters(one: Endpoint) -> list[dict[str, Any]]:
    named = [{"name": one.name, "in": "path", "required": True, "schema": {"type": "string"}}] if one.name else []
    query = _fields(one.query)
    asked = [
        {"name": name, "in": "query", "required": name in query.get("required", ()), "schema": schema}
        for name, schema in query["properties"].items()
    ]
    return [*named, *asked]


def _fields(kind: type) -> dict[str, Any]:
    (schema,), components = msgspec.json.schema_components([kind])
    found: dict[str, Any] = components[schema["$ref"].rpartition("/")[2]]
    return found


def _json(kind: type) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}
