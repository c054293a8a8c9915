"""Arguments of wrong types and values, for every call of both clients: each raises TorchloopError, with words."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.client import AsyncClient, BadArgument, Call, Client, TorchloopError
from tests.client_calls import answering
from tests.each import each_holds

GIVEN = {
    "data": [[1]], "version": 1, "number": 1, "checkpoint": b"x", "file": "copy.pt", "rate": 0.5, "truth": 7,
    "entries": [{}], "reference": "d@1", "path": __file__, "model": "m", "job_id": "j", "trial_id": "t", "upload": "u",
    "prediction": "i", "prediction_id": "i", "name": "n", "call": None,
}  # fmt: skip
_CYCLE: list[Any] = []
_CYCLE.append(_CYCLE)


class Unprintable:
    """A value without a text."""

    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __str__


VALUES: list[tuple[str, Callable[[], Any]]] = [
    ("None", lambda: None), ("True", lambda: True), ("-1", lambda: -1), ("10**5000", lambda: 10**5000),
    ("1.5", lambda: 1.5), ("NaN", lambda: float("nan")), ("infinity", lambda: float("inf")), ("''", lambda: ""),
    ("a null character", lambda: "\0"), ("a lone surrogate", lambda: "\ud800"), ("long text", lambda: "x" * 100_000),
    ("..", lambda: ".."), ("bytes", lambda: b"\xff"), ("an object", object), ("a class", lambda: int),
    ("[]", list), ("[None]", lambda: [None]), ("{}", dict), ("{1: NaN}", lambda: {1: float("nan")}),
    ("a set", lambda: {1}), ("a generator", lambda: iter("ab")), ("a function", lambda: lambda: 1),
    ("a complex number", lambda: 1j), ("a cycle", lambda: _CYCLE), ("unprintable", Unprintable),
    ("an empty array", lambda: np.zeros(0)), ("an array of no dimension", lambda: np.array(1)),
    ("an array of void", lambda: np.zeros(1, "V3")), ("NumPy's NaN", lambda: np.float64("nan")),
    ("not a time", lambda: np.datetime64("NaT")), ("a folder", lambda: "/"), ("a missing file", lambda: "/no/such"),
]  # fmt: skip


def not_found(_: httpx.Request) -> httpx.Response:
    document = {"type": "about:blank", "title": "Not found", "status": 404, "detail": "there is none"}
    return httpx.Response(404, json=document, headers={"content-type": "application/problem+json"})


def cases(owner: object) -> Iterator[tuple[str, str, str, Callable[[], Any]]]:
    for name in dir(owner):
        if name.startswith("_") or name in {"close", "datasets"}:
            continue
        for parameter in inspect.signature(getattr(owner, name)).parameters:
            for shown, value in VALUES:
                yield name, parameter, shown, value


def _arguments(call: Callable[..., Any], parameter: str, value: Any) -> dict[str, Any]:
    known = inspect.signature(call).parameters.values()
    given = {one.name: GIVEN[one.name] for one in known if one.default is one.empty}
    chosen = {"follow": False} if call.__name__ == "events" and parameter != "job_id" else {}  # else without an end
    return {**given, **chosen, parameter: value}


def _client(**options: Any) -> Client:
    return Client("http://h", transport=httpx.MockTransport(not_found), **options)


def _in_words(err: TorchloopError) -> None:
    assert 0 < len(str(err)) < 5000
    assert " at 0x" not in str(err)


def _refused(owner: object, case: tuple[str, str, str, Callable[[], Any]]) -> None:
    name, parameter, _, value = case
    call = getattr(owner, name)
    try:
        found = call(**_arguments(call, parameter, value()))
        if inspect.isgenerator(found):
            list(found)
    except TorchloopError as err:
        _in_words(err)


def _refused_async(runner: asyncio.Runner, owner: object, case: tuple[str, str, str, Callable[[], Any]]) -> None:
    name, parameter, _, value = case
    call = getattr(owner, name)

    async def asked() -> None:
        found = call(**_arguments(call, parameter, value()))
        if inspect.isasyncgen(found):
            async for _ in found:
                pass
        else:
            await found

    try:
        runner.run(asked())
    except TorchloopError as err:
        _in_words(err)


@pytest.mark.parametrize("part", ["client", "datasets"])
def test_any_argument_of_any_call_is_taken_or_refused_in_words(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Client("http://h", transport=httpx.MockTransport(not_found), retries=0, wait=lambda _: None) as client:
        owner = client if part == "client" else client.datasets
        each_holds(partial(_refused, owner), cases(owner))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", ["client", "datasets"])
def test_any_argument_of_an_asynchronous_call_too(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_pause(_: float) -> None:
        return

    monkeypatch.chdir(tmp_path)
    client = AsyncClient("http://h", transport=httpx.MockTransport(not_found), retries=0, wait=no_pause)
    owner = client if part == "client" else client.datasets
    with asyncio.Runner() as runner:
        each_holds(partial(_refused_async, runner, owner), cases(owner))
        runner.run(client.close())


def test_any_argument_of_a_client_is_taken_or_refused_in_words() -> None:
    def check(case: tuple[str, str, Callable[[], Any]]) -> None:
        name, _, value = case
        try:
            Client(**{"url": "http://h", "transport": httpx.MockTransport(not_found), name: value()}).models()
        except TorchloopError as err:
            _in_words(err)

    names = ("url", "key", "timeout_s", "retries", "wait")
    each_holds(check, [(name, *value) for name in names for value in VALUES])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda client: client.model(None), "name must be text, not of type NoneType"),
        (lambda client: client.predict("m", [[1]], version=1.5), "version must be a whole number or None, not"),
        (lambda client: client.drift("m", window=b"1h"), "window must be text or None, not of type bytes"),
        (lambda client: client.set_capture("m", "half"), "rate must be a number, not of type str"),
        (lambda client: client.captures("m", unlabelled="false"), "unlabelled must be True or False, not of type str"),
        (lambda client: client.captures("m", order=[]), "order must be one of 'newest', 'random', .* not of type list"),
        (lambda client: client.save("m", 1, None), "file must be text or a path, not of type NoneType"),
        (lambda client: client.follow("j", "bar"), "show must be a function or None, not of type str"),
        (lambda client: client.datasets.upload("m", "d", __file__, on_begin=1), "on_begin must be a function or None"),
        (lambda client: client.send_feedback("m", {"id": 1}), "entries must be a list of dicts"),
        (lambda client: list(client.events(kind=[1])), 'kind must be text such as "job.succeeded"'),
        (lambda client: client.events(after=2**63), "after must be the id of the last event"),
        (lambda client: client.execute("/models"), "execute takes a Call, .* not str"),
        (lambda _: _client(retries=float("nan")), "retries must be a whole number, not of type float"),
        (lambda _: _client(wait=3), "wait must be a function, not of type int"),
    ],
)  # fmt: skip
def test_a_wrong_type_is_named_with_the_argument(call: Callable[[Client], Any], words: str) -> None:
    with _client(retries=0) as client, pytest.raises(BadArgument, match=words):
        call(client)


@pytest.mark.parametrize("broken", [{"method": None}, {"path": 5}, {"arguments": {"params": _CYCLE}}])
def test_a_call_made_by_hand_is_refused_in_words(broken: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"method": "GET", "path": "/models", "read": httpx.Response.json, "repeatable": True}
    with answering(httpx.Response(200, json={})) as client, pytest.raises(BadArgument, match="cannot be sent"):
        client.execute(Call(**{**fields, **broken}))


def test_values_that_say_what_is_meant_are_taken() -> None:
    with answering(httpx.Response(200, json={"version": 3, "promotions": [], "rate": 1})) as client:
        assert client.version("m", "3") == client.version("m", np.int64(3)) == client.version(7, 3)  # type: ignore[arg-type]
        assert client.promotions("m", at=datetime(2026, 1, 1, tzinfo=UTC))  # type: ignore[arg-type]
        assert client.set_capture("m", np.float32(0.5), originals=np.bool_(True))  # type: ignore[arg-type]


def test_a_long_message_keeps_its_start_and_its_end() -> None:
    with pytest.raises(BadArgument) as refused:
        Client(f"http//{'x' * 100_000}")
    assert str(refused.value).startswith("'http//x")
    assert str(refused.value).endswith("x")
    assert len(str(refused.value)) < 5000
