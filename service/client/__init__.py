"""A client of the service, for programs (Client, AsyncClient) and terminals (`python -m service.client`).

    with Client() as torchloop:
        torchloop.predict("mnist", "digit.png")["predictions"][0]["label"]
        job = torchloop.train("mnist", {"epochs": 1}, wait=True, progress=True)

It needs neither torch nor FastAPI, and Pillow and NumPy only for pictures and arrays of these libraries.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.client.call import Call
    from service.client.clients import AsyncClient, Client
    from service.client.errors import (
        BadArgument,
        Conflict,
        Forbidden,
        Invalid,
        Late,
        Malformed,
        NotFound,
        NotTorchloop,
        Overloaded,
        Refused,
        ServiceFailed,
        TooLarge,
        TorchloopError,
        Unauthorized,
        Unavailable,
        Unreachable,
        UnsupportedMediaType,
    )
    from service.client.events import Entry, Event

__all__ = [
    "AsyncClient",
    "BadArgument",
    "Call",
    "Client",
    "Conflict",
    "Entry",
    "Event",
    "Forbidden",
    "Invalid",
    "Late",
    "Malformed",
    "NotFound",
    "NotTorchloop",
    "Overloaded",
    "Refused",
    "ServiceFailed",
    "TooLarge",
    "TorchloopError",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
    "UnsupportedMediaType",
]

if not TYPE_CHECKING:
    # Imported when first used, as httpx takes time: the command line first prepares for signals.

    def __getattr__(name):
        if name in __all__:
            for module in ("clients", "call", "errors", "events"):
                found = vars(import_module(f"service.client.{module}"))
                if name in found:
                    return found[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
