"""Types of arguments, checked against the annotations of a call before anything is sent."""

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from functools import cache, wraps
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin
from uuid import UUID

from service.client.errors import BadArgument

P = ParamSpec("P")
T = TypeVar("T")
_Test = Callable[[Any], bool]
_MOST = 10**18  # a greater number is not a name


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """Check the arguments of each call of a function or method by its annotations. The result raises BadArgument.

    Text, numbers, flags, paths and callbacks are checked; structures are left to the encoder of JSON and the service.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        signature, tests = _tests(function)
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if name in tests and not any(holds(value) for _, holds in tests[name]):
                wanted = " or ".join(word for word, _ in tests[name])
                raise BadArgument(f"{name} must be {wanted}, not of type {type(value).__name__}")
        return function(*args, **kwargs)

    return call


def required(name: str, value: T, kind: Any) -> T:
    """Return an argument of a kind of `_TESTS`. Raises BadArgument."""
    word, holds = _TESTS[kind]
    if not holds(value):
        raise BadArgument(f"{name} must be {word}, not of type {type(value).__name__}")
    return value


@cache
def _tests(function: Callable[..., Any]) -> tuple[inspect.Signature, Mapping[str, list[tuple[str, _Test]]]]:
    """Return the signature, and by the name of a parameter its tests, of which one has to hold."""
    signature = inspect.signature(function)
    found = {name: list(_of(parameter.annotation)) for name, parameter in signature.parameters.items()}
    return signature, {name: [test for test in tests if test] for name, tests in found.items() if all(tests)}


def _of(annotation: Any) -> Iterator[tuple[str, _Test] | None]:
    """Yield a name and a test for each type of a union; None for a type that is not checked."""
    origin = get_origin(annotation)
    if origin in {Union, UnionType}:
        for member in get_args(annotation):
            yield from _of(member)
    elif origin is Literal and all(isinstance(one, str) for one in get_args(annotation)):
        yield ("one of " + ", ".join(map(repr, get_args(annotation))), _is_text)
    else:
        yield _TESTS.get(origin or annotation)


def _is_text(value: Any) -> bool:
    """Return whether a value stands for a text: a number may be the name of a model, a time is one for `at`."""
    return isinstance(value, str | datetime | UUID) or (_is_whole(value) and abs(value) < _MOST)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_version(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, str) and value.isascii() and value.isdecimal())


def _is_flag(value: Any) -> bool:
    return value is None or isinstance(value, Integral) or type(value).__name__ in {"bool", "bool_"}  # also NumPy's


def _is_number(value: Any) -> bool:
    return isinstance(value, Real | Decimal) and not isinstance(value, bool)


_TESTS: Mapping[Any, tuple[str, _Test]] = {
    str: ("text", _is_text),
    int: ("a whole number", _is_version),
    float: ("a number", _is_number),
    bool: ("True or False", _is_flag),
    NoneType: ("None", lambda value: value is None),
    os.PathLike: ("a path", lambda value: isinstance(value, os.PathLike)),
    Callable: ("a function", callable),
}
