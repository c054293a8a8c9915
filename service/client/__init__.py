"""A client of the service, for programs (Client, AsyncClient) and terminals (`python -m service.client`).

    with Client() as torchloop:
        torchloop.predict("mnist", "digit.png")["predictions"][0]["label"]
        job = torchloop.train("mnist", {"epochs": 1}, wait=True, progress=True)

It needs neither torch nor FastAPI, and Pillow and NumPy only for pictures and arrays of these libraries.
"""

from service.client.calls import Call
from service.client.clients import AsyncClient, Client
from service.client.errors import (
    Conflict,
    Forbidden,
    Invalid,
    Late,
    Malformed,
    NotFound,
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
from service.client.events import Event

__all__ = [
    "AsyncClient",
    "Call",
    "Client",
    "Conflict",
    "Event",
    "Forbidden",
    "Invalid",
    "Late",
    "Malformed",
    "NotFound",
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
