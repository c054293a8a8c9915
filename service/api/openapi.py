"""The OpenAPI document: predict and explain routes, derived from the specs, and the error responses of every route."""

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from models.pictures import PICTURE_FORMATS
from models.spec import Method, ModelSpec
from service.inference.arrays import MAX_SAMPLES
from service.inference.decoding import media_types
from service.media_types import JSON, MULTIPART, NPY, OCTETS
from service.web import problems
from service.web.auth import AccessTable
from service.web.multipart import MAX_FILES

_TEXTS = {
    "400": "the request cannot be parsed",
    "401": "the key is missing or unknown",
    "403": "the key's scope does not allow this, or a page of another site sent the request",
    "404": "unknown model, version or job",
    "409": "the request conflicts with the current state",
    "412": "If-Match names another version than the live one",
    "413": "too many bytes or samples",
    "415": "unsupported media type, or a Content-Encoding other than gzip and deflate",
    "421": "the Host header names another service; without keys only loopback names are served",
    "422": "the request can be parsed, but is not valid",
    "429": "the queue is full, or a limit is reached: retry after Retry-After seconds",
    "503": "no live version, or the store is unavailable",
    "504": "the answer would come after the deadline",
}
_KEY = {"key": {"type": "http", "scheme": "bearer", "description": "one of TORCHLOOP_API_KEYS"}}
_SMALL_EXAMPLE = 1024  # numbers
CHECKPOINT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {OCTETS: {"schema": {"type": "string", "format": "binary", "description": "a state_dict file"}}},
    },
}
PREVIEW_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "as for POST /predict/{model}",
        "content": {
            **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in (*PICTURE_FORMATS, OCTETS, NPY)},
            JSON: {"schema": {"type": "object", "required": ["inputs"], "properties": {"inputs": {"type": "array"}}}},
        },
    },
}
_ERROR_ENTRY = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["title", "detail"],
            "properties": {"title": {"type": "string"}, "detail": {"type": "string"}},
        },
    },
}


def body_schema(spec: ModelSpec) -> dict[str, Any]:
    """Return the JSON schema of a model's application/json body."""
    inputs = {"type": "array", "items": spec.entry.json_schema(), "minItems": 1, "maxItems": MAX_SAMPLES}
    return {"type": "object", "required": ["inputs"], "properties": {"inputs": inputs}, "additionalProperties": False}


def example_body(spec: ModelSpec) -> dict[str, Any]:
    """Return the spec's example as an application/json body."""
    return {"inputs": spec.example.tolist()}


def small_example(spec: ModelSpec) -> dict[str, Any] | None:
    """Return `example_body` if it is small; None if it has an address of its own only: GET /models/{model}/example."""
    return example_body(spec) if spec.example.size <= _SMALL_EXAMPLE else None


def describe(app: FastAPI, specs: Mapping[str, ModelSpec], access: AccessTable, *, locked: bool) -> None:
    """Make `app.openapi()` describe a predict and an explain route per model, with examples, and the typed routes.

    Every operation lists its problem documents and, if the service is `locked` by keys, the security scheme.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                summary=app.summary,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            predict = {f"/predict/{name}": {"post": _predict(name, spec)} for name, spec in specs.items()}
            explain = {f"/explain/{name}": {"post": _explain(name, spec)} for name, spec in specs.items()}
            schema["paths"] = {**predict, **explain, **schema["paths"]}
            _correct_parameters(schema, list(specs))
            _add_problems(schema, access, locked=locked)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _correct_parameters(schema: dict[str, Any], names: list[str]) -> None:
    """List the model names wherever a model is a parameter, and remove `null` from optional parameters."""
    schema["components"]["schemas"]["TrainRequest"]["properties"]["model"]["enum"] = names
    operations = (operation for path in schema["paths"].values() for operation in path.values())
    for parameter in (parameter for operation in operations for parameter in operation.get("parameters", [])):
        kind = parameter["schema"]
        if (parameter["name"], parameter["in"]) == ("model", "path"):
            kind["enum"] = names
        if {"type": "null"} in kind.get("anyOf", []):
            kind |= next(option for option in kind.pop("anyOf") if option != {"type": "null"})


def _add_problems(schema: dict[str, Any], access: AccessTable, *, locked: bool) -> None:
    """Document the error responses of every operation, without FastAPI's own 422, which the service never sends."""
    parts = schema["components"]
    for name in ("HTTPValidationError", "ValidationError"):
        parts["schemas"].pop(name, None)
    parts["schemas"]["Problem"] = problems.SCHEMA
    if locked:
        parts["securitySchemes"] = _KEY
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            rule = access.find(method.upper(), path)
            found = {str(status) for status in rule.problems} if rule else set()
            if not locked:
                found.add("421")
            elif rule is None or rule.scope:
                found.add("401")
                operation["security"] = [{name: [] for name in _KEY}]
            for status in sorted(found.union({"422"}.intersection(operation["responses"]))):
                operation["responses"][status] = _problem(status)


def _problem(status: str) -> dict[str, Any]:
    document = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {"description": _TEXTS[status], "content": {problems.MEDIA_TYPE: document}}


def _predict(name: str, spec: ModelSpec) -> dict[str, Any]:
    version = {
        "name": "version",
        "in": "query",
        "description": "a version that is not live",
        "schema": {"type": "integer", "minimum": 0},
    }
    return {
        "tags": ["predict"],
        "summary": f"Predict: {spec.summary}",
        "operationId": f"predict_{name}",
        "parameters": [version],
        "requestBody": {"required": True, "content": {kind: _body(kind, spec) for kind in media_types(spec)}},
        "responses": {"200": _answer(name, spec)},
    }


def _explain(name: str, spec: ModelSpec) -> dict[str, Any]:
    """Describe an explain route: as _predict, with a choice of method, and explanations in the answer."""
    described = _predict(name, spec)
    method = {
        "name": "method",
        "in": "query",
        "description": "gradient: derivative of the answer by each number of the sample; "
        "integrated_gradients: how much each number "
        "adds to the answer for a sample of zeros",
        "schema": {"enum": list(get_args(Method)), "default": "gradient"},
    }
    return {
        **described,
        "summary": f"Explain: {spec.summary}",
        "operationId": f"explain_{name}",
        "parameters": [method, *described["parameters"]],
        "responses": {
            **described["responses"],
            "200": {
                "description": "one explanation a sample; a sample that failed has its error in its place",
                "headers": {"X-Model-Version": {"schema": {"type": "string"}}},
                "content": {JSON: {"schema": _entries(name, "explanations", _explanation(spec))}},
            },
        },
    }


def _explanation(spec: ModelSpec) -> dict[str, Any]:
    """Return the JSON schema of one explanation: the first field of a prediction, and the arrays of `spec.explain`."""
    field, kind = next(iter(TypeAdapter(spec.prediction).json_schema()["properties"].items()))
    no_samples = np.zeros((0, *spec.entry.shape), np.float32)
    names = {name for method in get_args(Method) for name in spec.explain(no_samples, method)}
    rows = {name: {"type": "array", "description": "of the shape of one entry"} for name in sorted(names)}
    return {"anyOf": [{"type": "object", "required": [field], "properties": {field: kind, **rows}}, _ERROR_ENTRY]}


def _body(media_type: str, spec: ModelSpec) -> dict[str, Any]:
    binary = {"type": "string", "format": "binary"}
    if media_type == JSON:
        example = small_example(spec)
        return {"schema": body_schema(spec), **({} if example is None else {"example": example})}
    if media_type == MULTIPART:
        files = {"type": "array", "items": binary, "minItems": 1, "maxItems": MAX_FILES}
        return {"schema": {"type": "object", "required": ["file"], "properties": {"file": files}}}
    if media_type in {*PICTURE_FORMATS, OCTETS}:
        return {"schema": {**binary, "description": "the bytes of one picture"}}
    shape = ", ".join(["N", *map(str, spec.entry.shape)])
    return {"schema": {**binary, "description": f"a .npy file: {np.dtype(spec.entry.dtype).name} ({shape})"}}


def _answer(name: str, spec: ModelSpec) -> dict[str, Any]:
    entry = {"anyOf": [TypeAdapter(spec.prediction).json_schema(), _ERROR_ENTRY]}
    text = {"schema": {"type": "string"}}
    return {
        "description": "one prediction a sample; a sample that failed has its error in its place",
        "headers": {"X-Model-Version": text, "Server-Timing": text},
        "content": {
            JSON: {"schema": _entries(name, "predictions", entry)},
            NPY: {"schema": {"type": "string", "format": "binary", "description": "float32 values (N, k)"}},
        },
    }


def _entries(name: str, field: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of an answer with one entry per sample, under `field`."""
    return {
        "type": "object",
        "required": ["model", "version", field],
        "properties": {
            "model": {"const": name},
            "version": {"type": "integer"},
            field: {"type": "array", "items": entry, "description": "one entry a sample, in order"},
        },
    }
