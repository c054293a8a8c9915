"""How the service starts: the port is taken first, and one line says where the page is."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import ROOT

pytestmark = pytest.mark.slow


def _started(folder: Path, **settings: str) -> "subprocess.Popen[str]":
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TORCHLOOP_")}
    return subprocess.Popen(
        [sys.executable, "-m", "service"],
        cwd=ROOT,
        env={**environ, "TORCHLOOP_STORE": str(folder), "TORCHLOOP_PORT": "0", **settings},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_several_web_processes_name_the_address_once(tmp_path: Path) -> None:
    with _started(tmp_path, TORCHLOOP_WEB_PROCESSES="2", TORCHLOOP_WORKER="external") as process:
        assert process.stderr is not None
        seen = ""
        for line in process.stderr:
            seen += line
            if seen.count("Application startup complete") == 2 and "running on" in seen:
                break
        process.terminate()
        seen += process.stderr.read()
    [url, documentation] = re.findall(r"http://[\d.:]+", seen)
    assert url == documentation
    assert f"running on {url} (open it in a browser; API documentation: {url}/docs; stop with Ctrl-C)" in seen


def test_a_port_that_is_taken_stops_the_start_before_the_worker(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with _started(tmp_path, TORCHLOOP_PORT=port, TORCHLOOP_WORKER="embedded") as process:
            assert process.stderr is not None
            said = process.stderr.read()
    assert process.returncode == 1
    [line] = said.splitlines()
    assert f"cannot listen on 127.0.0.1, port {port}" in line
