"""A call of the service: one request, and how its response is read; and the parts that calls are described with."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx

from service.client import connection, files, numbers
from service.client.errors import BadArgument, first_line
from service.client.show import Show

T = TypeVar("T")
OCTETS = "application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One request, and how its response is read.

    `repeatable`: the request is idempotent and may be retried.
    `timeout_s`: replaces the client's timeout for slow calls.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    repeatable: bool
    arguments: Mapping[str, Any] = field(default_factory=dict)  # of httpx.Client.build_request
    timeout_s: float | None = None
    stream: files.Upload | None = None  # the body
    target: files.Target | None = None  # for the content of the response


@dataclass(frozen=True, slots=True)
class Asking(Generic[T]):
    """A call that depends on the answer of a first one."""

    first: Call[Any]
    then: Callable[[Any], Call[T]]


@dataclass(frozen=True, slots=True)
class Following:
    """A step: wait for the end of a job; `show` is called with each of its events. The answer is the job."""

    job: str
    show: Show | None


Step = Call[Any] | Following | float | Callable[[], Any]  # also a pause in seconds, or a function that reads the disk


@dataclass(frozen=True, slots=True)
class Steps(Generic[T]):
    """A call of several requests. `begin`, given how often a client retries, returns a generator that yields steps,
    gets their answers, or the TorchloopError thrown, and returns the result.
    """

    begin: Callable[[int], Generator[Step, Any, T]]


def require_call(call: object) -> None:
    """Raise BadArgument if an object is not one call."""
    if not isinstance(call, Call):
        raise BadArgument(
            f"execute takes a Call, as the functions of service.client.calls return it, not {type(call).__name__}"
        )


def object_with(*names: str) -> Callable[[httpx.Response], Any]:
    """Read a JSON object. Raises ValueError, KeyError or TypeError if it is another or lacks one of the fields."""

    def read(response: httpx.Response) -> Any:
        found = response.json()
        for name in names:
            found[name]
        return found if isinstance(found, dict) else _wrong()

    return read


def list_under(key: str) -> Callable[[httpx.Response], Any]:
    """Read the list under a key of a JSON object. Raises ValueError, KeyError or TypeError if there is none."""

    def read(response: httpx.Response) -> Any:
        found = response.json()[key]
        return found if isinstance(found, list) else _wrong()

    return read


def _wrong() -> Any:
    raise TypeError("not the type of JSON that the service answers with")


def file_of(media_type: str) -> Callable[[httpx.Response], bytes]:
    """Read a body of that media type. Raises ValueError for another one, such as the page of a proxy."""

    def read(response: httpx.Response) -> bytes:
        if not response.headers.get("content-type", "").startswith(media_type):  # the page of a proxy, say
            raise ValueError("another media type")
        return response.content

    return read


def no_content(_: httpx.Response) -> None:
    """Read nothing."""
    return


def path(*parts: object) -> str:
    """Build a path; each part is one segment of it. Raises BadArgument."""
    return "/" + "/".join(_segment(part) for part in parts)


def _segment(part: object) -> str:
    if isinstance(part, list | tuple | dict | set):
        raise BadArgument(f"a {type(part).__name__} is not a name of a model, version or job")
    try:
        segment = quote(str(part), safe="")
    except UnicodeEncodeError as err:
        raise BadArgument(f"{str(part)!a} has characters that are not valid Unicode") from err
    except ValueError as err:  # of more digits than Python converts
        raise BadArgument(f"a number is no name or version of anything ({first_line(err)})") from err
    if segment in {"", ".", ".."}:
        raise BadArgument(f"{str(part)!r} is not a name of a model, version or job")
    return segment


def json_body(value: object, name: str) -> dict[str, Any]:
    """Return the arguments of a request with a JSON body. Raises BadArgument."""
    return {"content": numbers.encoded(value, name), "headers": {"Content-Type": "application/json"}}


def key_header(given: str | None) -> dict[str, Any]:
    """Return the Idempotency-Key header, of a new key unless one is given. Raises BadArgument."""
    return {"Idempotency-Key": connection.header("idempotency_key", uuid4().hex if given is None else given)}


def get(path: str, read: Callable[[httpx.Response], T], **params: Any) -> Call[T]:
    """Return a GET request; parameters that are None are left out."""
    given = {name: value for name, value in params.items() if value is not None}
    return Call(method="GET", path=path, read=read, repeatable=True, arguments={"params": given})
