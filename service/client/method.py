"""Methods that execute a call, of synchronous and of asynchronous clients."""

from collections.abc import Awaitable, Callable
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar, overload

from service.client.arguments import checked
from service.client.call import Asking, Call, Steps

P = ParamSpec("P")
T = TypeVar("T")


class Synchronous:
    """A class with a method `execute` that returns the result of a call."""


class Asynchronous:
    """A class with a method `execute` that returns an awaitable of the result."""


class method(Generic[P, T]):  # noqa: N801 - used like a function
    """Turn a function that describes a call into a method that executes it, synchronously or asynchronously."""

    def __init__(self, describe: Callable[P, Call[T] | Asking[T] | Steps[T]]) -> None:
        self._describe = checked(describe)
        self.__doc__ = describe.__doc__

    @overload
    def __get__(self, client: Synchronous, owner: type | None = None) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: Asynchronous, owner: type | None = None) -> Callable[P, Awaitable[T]]: ...
    @overload
    def __get__(self, client: None, owner: type | None = None) -> "method[P, T]": ...
    def __get__(self, client: Any, owner: type | None = None) -> Any:
        if client is None:
            return self

        def call(*args: P.args, **kwargs: P.kwargs) -> Any:
            return client.execute(self._describe(*args, **kwargs))

        return update_wrapper(call, self._describe)
