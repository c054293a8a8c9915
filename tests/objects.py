"""An S3 server for the tests: moto's, on a free loopback port, in threads of this process."""

import logging
import threading
import warnings
from collections.abc import Callable, Iterable
from typing import Any
from uuid import uuid4

import httpx

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class S3Server:
    """A server with the objects of this process. They outlive `stop`, as those of a server that is away for a while."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from moto.moto_server import werkzeug_app  # noqa: PLC0415 - takes a second
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._app: App = werkzeug_app.DomainDispatcherApplication(werkzeug_app.create_backend_app)
        self._port = 0
        self.honours_conditions = True
        self.is_ill = False
        self.failed = 0  # requests, while it is ill
        self.start()

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of its clients."""
        return {**ENVIRONMENT, "AWS_ENDPOINT_URL": self._url}

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def create_bucket(self) -> str:
        """Create an empty bucket. Returns the URL of a folder in it."""
        name = f"b{uuid4().hex}"
        httpx.put(f"{self._url}/{name}").raise_for_status()
        return f"s3://{name}/some/prefix"

    def start(self) -> None:
        """Start it, again at the same port."""
        from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: PLC0415 - as above

        class Handler(WSGIRequestHandler):
            protocol_version = "HTTP/1.0"  # no connection outlives `stop`

        self._server = make_server("127.0.0.1", self._port, self._answer, threaded=True, request_handler=Handler)
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop it: connections are refused."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if self.is_ill:
            self.failed += 1
            start("503 Service Unavailable", [("Content-Length", "0")])
            return []
        if not self.honours_conditions:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        return self._app(environ, start)
