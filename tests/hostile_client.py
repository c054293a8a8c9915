"""Raw connections to a started service, and the service's process that answers them."""

from urllib.parse import urlsplit

import httpx
import psutil

from tests.hostile import SEVEN


def web_process(url: str) -> psutil.Process:
    """The one that listens there."""
    port = urlsplit(url).port
    for process in psutil.Process().children(recursive=True):
        if any(at.status == psutil.CONN_LISTEN and at.laddr.port == port for at in process.net_connections("tcp")):
            return process
    raise AssertionError("nobody listens")


def normal(url: str) -> None:
    """The service answers as ever."""
    response = httpx.post(f"{url}/predict/mnist", content=SEVEN)
    assert response.json()["predictions"][0]["label"] == 7
