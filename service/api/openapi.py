"""The OpenAPI document: predict and explain routes, derived from the specs, and the error responses of every route."""

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from models.gradients import may_be_explained
from models.pictures import PICTURE_FORMATS
from models.spec import Method, ModelSpec
from service.api.predictions import binary_types
from service.api.signatures import body_schema, prediction_schema, small_example, without_long_lists
from service.inference.decoding import media_types
from service.media_types import JSON, MULTIPART, NPY, NPZ, OCTETS, PNG, TAR
from service.web import problems
from service.web.auth import AccessTable
from service.web.multipart import MAX_FILES

_TEXTS = {
    "400": "the request cannot be parsed",
    "401": "the key is missing or unknown",
    "403": "the key's scope does not allow this, or a page of another site sent the request",
    "404": "unknown model, version, dataset, upload or job",
    "409": "the request conflicts with the current state",
    "412": "If-Match names another version than the live one",
    "413": "too many bytes or samples",
    "415": "unsupported media type, or a Content-Encoding other than gzip and deflate",
    "421": "the Host header names another service; without keys only loopback names are served",
    "422": "the request can be parsed, but is not valid",
    "429": "the queue is full, or a limit is reached: retry after Retry-After seconds",
    "503": "no live version, or it is still being loaded, or the store is unavailable",
    "504": "the answer would come after the deadline",
}
_KEY = {"key": {"type": "http", "scheme": "bearer", "description": "one of TORCHLOOP_API_KEYS"}}
CHECKPOINT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            OCTETS: {"schema": {"type": "string", "format": "binary", "description": "a state_dict file, or a bundle"}},
            TAR: {"schema": {"type": "string", "format": "binary", "description": "a bundle"}},
        },
    },
}
DATASET_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "a file of examples: CSV (.gz), JSON Lines, .npy or .npz, an IDX file, Parquet, or a zip or tar "
        "of pictures; its content tells the format",
        "content": {OCTETS: {"schema": {"type": "string", "format": "binary"}}},
    },
}
PART_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {OCTETS: {"schema": {"type": "string", "format": "binary", "description": "bytes of the file"}}},
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
_BINARY = {"type": "string", "format": "binary"}
_VERSION = {
    "name": "version",
    "in": "query",
    "description": "a version that is not live",
    "schema": {"type": "integer", "minimum": 0},
}
_SEGMENT = {
    "name": "segment",
    "in": "query",
    "description": "true: the body is one picture; answer each sample in it, in reading order, with its box",
    "schema": {"type": "boolean", "default": False},
}
_BOX = {
    "type": "array",
    "items": {"type": "integer"},
    "minItems": 4,
    "maxItems": 4,
    "description": "with segment=true: left, top, right, bottom, in pixels of the upright picture",
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
            explain = {
                f"/explain/{name}": {"post": _explain(name, spec)}
                for name, spec in specs.items()
                if may_be_explained(spec)
            }
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
    parts["responses"] = {f"Problem{status}": _problem(status) for status in _TEXTS}
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
                operation["responses"][status] = {"$ref": f"#/components/responses/Problem{status}"}


def _problem(status: str) -> dict[str, Any]:
    document = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {"description": _TEXTS[status], "content": {problems.MEDIA_TYPE: document}}


def _predict(name: str, spec: ModelSpec) -> dict[str, Any]:
    return {
        "tags": ["predict"],
        "summary": f"Predict: {spec.summary}",
        "operationId": f"predict_{name}",
        "parameters": [_VERSION, *([_SEGMENT] if spec.segments else [])],
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
    output = {
        "name": "output",
        "in": "query",
        "description": "the output that is explained: of k numbers the largest, else their sum",
        "schema": {"enum": list(spec.outputs), "default": next(iter(spec.outputs), None)},
    }
    return {
        **described,
        "summary": f"Explain: {spec.summary}",
        "operationId": f"explain_{name}",
        "parameters": [method, *([output] if spec.outputs else []), _VERSION],
        "responses": {
            **described["responses"],
            "200": {
                "description": "one explanation a sample; a sample that failed has its error in its place",
                "headers": {"X-Model-Version": {"schema": {"type": "string"}}},
                "content": {JSON: {"schema": _explanations(name, spec)}},
            },
        },
    }


def _explanations(name: str, spec: ModelSpec) -> dict[str, Any]:
    """Return the JSON schema of the answer of an explain route."""
    schema = _entries(name, "explanations", _explanation(spec))
    more: dict[str, Any] = {"output": {"enum": list(spec.outputs)}} if spec.outputs else {}
    if spec.inputs:
        reasons = {"type": "object", "additionalProperties": {"type": "string"}}
        more["no_gradient"] = {**reasons, "description": "the inputs without a gradient, and why"}
    return {**schema, "properties": {**schema["properties"], **more}}


def _explanation(spec: ModelSpec) -> dict[str, Any]:
    """Return the JSON schema of one explanation: a field of the prediction, and the arrays of `spec.explain`.

    The field is the first one, or that of the explained output.
    """
    properties = prediction_schema(spec)["properties"]
    fields = {name: kind for name, kind in properties.items() if name in spec.outputs} or dict(
        [*properties.items()][:1]
    )
    no_samples = np.zeros((0, *(() if spec.inputs else spec.tensor.shape)), np.float32)
    names = {name for method in get_args(Method) for name in spec.explain(no_samples, method)}
    if spec.inputs:
        arrays = {"type": "object", "description": "by input, each of the shape of one sample's value"}
    else:
        arrays = {"type": "array", "description": "of the shape of one entry"}
    required = list(fields) if len(fields) == 1 else []
    described = {
        "type": "object",
        "required": required,
        "properties": {**fields, **dict.fromkeys(sorted(names), arrays)},
    }
    return {"anyOf": [described, _ERROR_ENTRY]}


def _body(media_type: str, spec: ModelSpec) -> dict[str, Any]:
    if media_type == JSON:
        example = small_example(spec)
        return {"schema": without_long_lists(body_schema(spec)), **({} if example is None else {"example": example})}
    if spec.inputs:
        return {"schema": _named_body(media_type, spec)}
    if media_type == MULTIPART:
        files = {"type": "array", "items": _BINARY, "minItems": 1, "maxItems": MAX_FILES}
        return {"schema": {"type": "object", "required": ["file"], "properties": {"file": files}}}
    if media_type in {*PICTURE_FORMATS, OCTETS}:
        return {"schema": {**_BINARY, "description": "the bytes of one picture"}}
    shape = ", ".join(["N", *map(str, spec.tensor.shape)])
    return {"schema": {**_BINARY, "description": f"a .npy file: {np.dtype(spec.tensor.dtype).name} ({shape})"}}


def _named_body(media_type: str, spec: ModelSpec) -> dict[str, Any]:
    """Return the schema of a body of named inputs that is not JSON."""
    if media_type == MULTIPART:
        fields = {name: {"type": "array", "items": {"type": "string"}} for name in spec.inputs}
        return {
            "type": "object",
            "properties": fields,
            "description": "a field of each input for each sample, in order",
        }
    if media_type == NPZ:
        arrays = ", ".join(f"{name} {_shape(kind.described())}" for name, kind in spec.inputs.items())
        return {**_BINARY, "description": f"an .npz file: {arrays}; arrays of optional inputs may be absent"}
    if media_type == NPY:
        ((name, kind),) = spec.inputs.items()
        return {**_BINARY, "description": f"a .npy file: {name} {_shape(kind.described())}"}
    return {**_BINARY, "description": "the bytes of one picture"}


def _shape(described: Mapping[str, Any]) -> str:
    sizes = ["N", *("any" if size is None else str(size) for size in described["shape"])]
    return f"{'values' if 'values' in described else described['dtype']} ({', '.join(sizes)})"


def _answer(name: str, spec: ModelSpec) -> dict[str, Any]:
    prediction = prediction_schema(spec)
    if spec.segments:
        prediction = {**prediction, "properties": {**prediction["properties"], "box": _BOX}}
    entry = {"anyOf": [prediction, _ERROR_ENTRY]}
    text = {"schema": {"type": "string"}}
    return {
        "description": "one prediction a sample; a sample that failed has its error in its place",
        "headers": {"X-Model-Version": text, "X-Prediction-Id": text, "Server-Timing": text},
        "content": {
            JSON: {"schema": _with_id(_entries(name, "predictions", entry))},
            **{kind: {"schema": {**_BINARY, "description": _binary_answer(kind, spec)}} for kind in binary_types(spec)},
        },
    }


def _binary_answer(media_type: str, spec: ModelSpec) -> str:
    if media_type == PNG:
        return "the answered picture of one sample"
    if not spec.outputs:
        return "float32 values (N, k)"
    outputs = (f"{name} {_shape(output.described())}" for name, output in spec.outputs.items())
    return f"{'arrays' if media_type == NPZ else 'an array'}: {', '.join(outputs)}"


def _with_id(schema: Mapping[str, Any]) -> dict[str, Any]:
    identity = {"type": "string", "description": "names the answer, for feedback and replay"}
    return {**schema, "required": [*schema["required"], "id"], "properties": {**schema["properties"], "id": identity}}


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
