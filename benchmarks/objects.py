"""An S3 server for tests and benchmarks: moto's, on a free loopback port, in threads of this process.

`python -m benchmarks.objects` runs one in a process of its own. It prints {"environment", "url"} as a line of JSON, the
variables of its clients and the URL of an empty bucket. Then it obeys `stop` and `start`, each a line of its input, and
answers each by such a line. It ends at the end of its input.
"""

import json
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

ROOT = Path(__file__).parents[1]
INSTALLED = all(find_spec(name) is not None for name in ("moto", "werkzeug", "obstore"))
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


class S3Process:
    """A server in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        state = self._answer()
        self.environment: Mapping[str, str] = state["environment"]
        self.url: str = state["url"]

    def do(self, word: str) -> None:
        """Give the order `stop` or `start`, and wait until it has been obeyed."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@contextmanager
def s3_process() -> Iterator[S3Process]:
    """Start a server in a process of its own; its objects are lost at the end."""
    command = [sys.executable, "-m", "benchmarks.objects"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        yield S3Process(process)


def run() -> None:
    """Run a server for S3Process."""
    server = S3Server()
    state = json.dumps({"environment": server.environment, "url": server.create_bucket()})
    sys.stdout.write(f"{state}\n")
    sys.stdout.flush()
    for line in sys.stdin:
        {"stop": server.stop, "start": server.start}[line.strip()]()
        sys.stdout.write(f"{state}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    run()
