"""Codec of the Open Inference Protocol: parse infer requests into named arrays, write arrays as responses.

A body is JSON, followed by the data of its binary tensors; a header gives the length of the JSON.
Pure functions: no HTTP, no model. Unreadable input raises Malformed.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import orjson

from models.entries import MAX_SAMPLES
from models.errors import TooManySamples
from models.spec import Array
from service.api.openinference.tensors import (
    BYTES,
    MAX_DEPTH,
    TensorType,
    datatype_of,
    elements,
    from_bytes,
    from_json,
    shown,
    to_bytes,
    to_json,
    types_in,
)
from service.errors import Malformed

_RESERVED: Mapping[str, tuple[type, ...]] = {
    "sequence_id": (int, str),
    "sequence_start": (bool,),
    "sequence_end": (bool,),
    "priority": (int,),
    "timeout": (int,),
    "binary_data_output": (bool,),
}
_HEADS, _HEAD_BYTES = 64, 1024  # that are remembered, and the size of one


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a request. `data` has the declared shape; BYTES are an array of bytes objects."""

    type: TensorType
    data: Array
    binary: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """A requested output; `classification` > 0 asks for that many best classes instead of values."""

    name: str
    binary: bool
    classification: int = 0


@dataclass(frozen=True, slots=True)
class Inference:
    """A parsed request: its tensors by name, and the requested outputs."""

    id: str | None
    timeout_s: float | None
    inputs: Mapping[str, Tensor]
    outputs: Sequence[Wanted]


Accepted = Mapping[str, Sequence[TensorType]]  # input name -> its accepted forms, the declared one first


def parse(body: bytes, header_length: str | None, accepted: Accepted, outputs: Collection[str]) -> Inference:
    """Parse the body of an infer request into tensors, each of one of the `accepted` forms, and requested `outputs`.

    Raises Malformed, TooManySamples.
    """
    size = _json_size(header_length, len(body))
    if header_length is not None and size == 0:
        return _raw(body, accepted, outputs)
    return _Reader(body, size).inference(accepted, outputs)


class Heads:
    """Parses bodies as `parse` does, and remembers the JSON in front of binary tensors.

    A client sends the same JSON with each request. It is remembered if all of its tensors are binary and it was read
    without an error, so that only the data can be wrong the next time.
    """

    def __init__(self, accepted: Accepted, outputs: Collection[str]) -> None:
        self._accepted = accepted
        self._outputs = outputs
        self._known: dict[bytes, tuple[Inference, list[_Piece]]] = {}

    def parse(self, body: bytes, header_length: str | None) -> Inference:
        """Parse the body of an infer request. Raises Malformed, TooManySamples."""
        if header_length is None:
            return parse(body, None, self._accepted, self._outputs)
        size = _json_size(header_length, len(body))
        if size == 0 or size > _HEAD_BYTES:
            return parse(body, header_length, self._accepted, self._outputs)
        head = body[:size]
        known = self._known.get(head)
        if known is None:
            return self._read(body, head)
        asked, pieces = known
        data = _Data(body, size)
        inputs = {piece.kind.name: data.tensor(piece) for piece in pieces}
        data.end()
        return replace(asked, inputs=inputs)

    def _read(self, body: bytes, head: bytes) -> Inference:
        reader = _Reader(body, len(head))
        asked = reader.inference(self._accepted, self._outputs)
        if asked.id is None and len(reader.data.read) == len(asked.inputs):  # an id is another one each time
            if len(self._known) >= _HEADS:
                self._known.clear()
            self._known[head] = replace(asked, inputs={}), reader.data.read
        return asked


def encode(
    model: str,
    version: str,
    request_id: str | None,
    prediction_id: str,
    outputs: Sequence[tuple[Wanted, Array]],
    *,
    finite: bool = False,
) -> tuple[bytes, int | None]:
    """Return an infer response, and the length of its JSON if binary tensors follow.

    Its id is the caller's `request_id`; the service's own is a parameter. `finite`: all values are known to be finite.
    """
    described: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for wanted, values in outputs:
        entry: dict[str, Any] = {"name": wanted.name, "datatype": datatype_of(values.dtype), "shape": values.shape}
        if wanted.binary:
            blobs.append(to_bytes(values))
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            entry["data"] = to_json(values, finite=finite)
        described.append(entry)
    answer: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": described}
    answer["parameters"] = {"prediction_id": prediction_id}
    if request_id is not None:
        answer["id"] = request_id
    head = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join([head, *blobs]), len(head) if blobs else None


def json_object(content: bytes) -> dict[str, Any]:
    """Parse a JSON object."""
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as err:
        raise Malformed(f"the request is not valid JSON: {err}") from err
    if not isinstance(value, dict):
        raise Malformed("the request must be a JSON object")
    return value


def _json_size(header_length: str | None, body_size: int) -> int:
    """Return the length of the JSON: the whole body if no header says otherwise."""
    if header_length is None:
        return body_size
    if not (header_length.isascii() and header_length.isdecimal() and len(header_length) <= 10):
        raise Malformed(f"Inference-Header-Content-Length must be a whole number of bytes, not {shown(header_length)}")
    if int(header_length) > body_size:
        raise Malformed(f"Inference-Header-Content-Length is {int(header_length)}, the body has {body_size} bytes")
    return int(header_length)


def _raw(body: bytes, accepted: Accepted, outputs: Collection[str]) -> Inference:
    """Parse a body that holds only the data of one tensor: a batch of one, answered in binary."""
    types = [forms[0] for forms in accepted.values()]
    if len(types) != 1 or types[0].shape.count(-1) > 1:
        raise Malformed("the raw form is for models of one input with one variable dimension: send JSON in front")
    kind = types[0]
    shape = tuple(1 if size == -1 else size for size in kind.shape)
    array = elements([body]) if kind.datatype == BYTES else from_bytes(memoryview(body), kind, shape)
    return Inference(None, None, {kind.name: Tensor(kind, array, True)}, [Wanted(name, True) for name in outputs])


class _Piece(NamedTuple):
    """A binary tensor that the JSON announces: `size` is its parameter binary_data_size, as the client sent it."""

    kind: TensorType
    shape: tuple[int, ...]
    size: Any


class _Data:
    """The data behind the JSON of a request; `read` are the tensors read from it so far."""

    def __init__(self, body: bytes, json_size: int) -> None:
        self._rest = memoryview(body)[json_size:]
        self.read: list[_Piece] = []

    def tensor(self, piece: _Piece) -> Tensor:
        """Read the next tensor. Raises Malformed."""
        kind, shape, size = piece
        if type(size) is not int or size < 0:
            raise Malformed(f"input {kind.name!r}: binary_data_size must be a whole number of bytes")
        if size > len(self._rest):
            raise Malformed(f"input {kind.name!r} announces {size} bytes, the body has {len(self._rest)} left")
        taken, self._rest = self._rest[:size], self._rest[size:]
        self.read.append(piece)
        return Tensor(kind, _ranked(from_bytes(taken, kind, shape), kind), True)

    def end(self) -> None:
        """Raise Malformed if there is more data."""
        if self._rest:
            raise Malformed(f"{len(self._rest)} bytes are left over behind the tensors that the JSON announces")


class _Reader:
    """Reads one request; its binary data is consumed in the order of the inputs that declare some."""

    def __init__(self, body: bytes, json_size: int) -> None:
        self._head = json_object(body[:json_size])
        self.data = _Data(body, json_size)
        self._has_booleans = body.find(b"true", 0, json_size) >= 0 or body.find(b"false", 0, json_size) >= 0
        self._inputs = _list_of_objects(self._head.pop("inputs", None), "inputs")
        if body.count(b"[", 0, json_size) + body.count(b"{", 0, json_size) > MAX_DEPTH:
            types_in([self._head, [{**item, "data": None} for item in self._inputs]])  # nesting depth

    def inference(self, accepted: Accepted, outputs: Collection[str]) -> Inference:
        head = self._head
        parameters = _parameters(head, "the request")
        _check_reserved(parameters)
        request_id = head.get("id")
        if request_id is not None and not isinstance(request_id, str):
            raise Malformed("id must be a string")
        tensors: dict[str, Tensor] = {}
        for item in self._inputs:
            tensor = self._tensor(item, accepted)
            if tensor.type.name in tensors:
                raise Malformed(f"input {tensor.type.name!r} is there twice")
            tensors[tensor.type.name] = tensor
        if missing := [name for name, forms in accepted.items() if name not in tensors and not forms[0].optional]:
            raise Malformed(f"input {missing[0]!r} is missing")
        if not tensors:
            raise Malformed(f"send one of the inputs {', '.join(accepted)}: its shape says how many samples there are")
        self.data.end()
        timeout_s = parameters.get("timeout", 0) / 1_000_000 or None
        wanted = _wanted(head.get("outputs"), parameters.get("binary_data_output", False), outputs)
        return Inference(request_id, timeout_s, tensors, wanted)

    def _tensor(self, item: dict[str, Any], accepted: Accepted) -> Tensor:
        name = item.get("name")
        if not isinstance(name, str) or name not in accepted:
            raise Malformed(f"unknown input {shown(name)}; there is {', '.join(accepted)}")
        kind, shape = _form(item, accepted[name])
        parameters = _parameters(item, f"input {name!r}")
        if ("data" in item) == ("binary_data_size" in parameters):
            raise Malformed(f"input {name!r} needs either data or the parameter binary_data_size")
        if "data" in item:
            array = from_json(item["data"], kind, shape, has_booleans=self._has_booleans)
            return Tensor(kind, _ranked(array, kind), False)
        return self.data.tensor(_Piece(kind, shape, parameters["binary_data_size"]))


def _form(item: dict[str, Any], forms: Sequence[TensorType]) -> tuple[TensorType, tuple[int, ...]]:
    """Return the matching form of an input, and its shape. Raises Malformed, TooManySamples."""
    name, shape, datatype = item["name"], item.get("shape"), item.get("datatype")
    for kind in forms:
        if kind.datatype == datatype:
            break
    else:
        raise Malformed(f"input {name!r} has datatype {shown(datatype)}; send {_choice(forms)}")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise Malformed(
            f"input {name!r}: shape must be a list of whole numbers, none of them negative; send {_choice(forms)}"
        )
    if shape and kind.shape[0] == -1 and shape[0] > MAX_SAMPLES:
        raise TooManySamples(shape[0], MAX_SAMPLES)
    wanted = (-1, 1) if kind.shape == (-1,) and len(shape) == 2 else kind.shape
    fits = len(shape) == len(wanted) and all(want in {-1, size} for size, want in zip(shape, wanted, strict=True))
    if not fits:
        raise Malformed(f"input {name!r} has shape {shown(shape)}; send {kind}")
    return kind, tuple(shape)


def _choice(forms: Sequence[TensorType]) -> str:
    return " or ".join(map(str, forms))


def _ranked(array: Array, kind: TensorType) -> Array:
    """Remove the last dimension of shape [N, 1], in which other servers send a column of strings or numbers."""
    return array.reshape(array.shape[: len(kind.shape)])


def _wanted(requested: Any, binary: bool, known: Collection[str]) -> list[Wanted]:
    """Return the requested outputs; all of them if none is named."""
    if requested is None or requested == []:
        return [Wanted(name, binary) for name in known]
    wanted: dict[str, Wanted] = {}
    for item in _list_of_objects(requested, "outputs"):
        name = item.get("name")
        if not isinstance(name, str) or name not in known:
            raise Malformed(f"unknown output {shown(name)}; there is {', '.join(known)}")
        if name in wanted:
            raise Malformed(f"output {name!r} is requested twice")
        parameters = _parameters(item, f"output {name!r}")
        as_binary, count = parameters.get("binary_data", binary), parameters.get("classification", 0)
        if not isinstance(as_binary, bool) or type(count) is not int or count < 0:
            raise Malformed(f"output {name!r}: binary_data is true or false, classification a number of classes")
        wanted[name] = Wanted(name, as_binary, count)
    return list(wanted.values())


def _parameters(item: dict[str, Any], where: str) -> dict[str, Any]:
    parameters = item.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict) or not all(isinstance(v, str | int | float) for v in parameters.values()):
        raise Malformed(f"the parameters of {where} must be an object of strings, numbers and booleans")
    if any(name.startswith("shared_memory") for name in parameters):
        raise Malformed(f"{where} names shared memory, which is not offered: send the data in the body")
    return parameters


def _check_reserved(parameters: Mapping[str, Any]) -> None:
    """Check the types of the protocol's reserved parameters; sequences and priorities have no effect."""
    for name, value in parameters.items():
        if name == "headers" or name.startswith("triton_"):
            raise Malformed(f"the parameter {shown(name)} is reserved")
        if name in _RESERVED and (type(value) not in _RESERVED[name] or (type(value) is int and value < 0)):
            words = " or ".join(kind.__name__ for kind in _RESERVED[name])
            raise Malformed(f"the parameter {name} must be of type {words}, and not negative")


def _list_of_objects(value: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Malformed(f"{where} must be a list of objects")
    return value
