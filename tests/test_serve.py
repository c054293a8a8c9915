"""Start of the service: the port is bound first, and one log line has the URL."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.fakes import ROOT, started_before

pytestmark = pytest.mark.slow


def _started(folder: Path, *options: str, **settings: str) -> "subprocess.Popen[str]":
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TORCHLOOP_")}
    return subprocess.Popen(
        [sys.executable, "-m", "service", *options],
        cwd=ROOT,
        env={**environ, "TORCHLOOP_STORE": str(folder), "TORCHLOOP_PORT": "0", **settings},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_several_web_processes_name_the_address_once(tmp_path: Path) -> None:
    store = started_before(tmp_path)
    with _started(store, TORCHLOOP_WEB_PROCESSES="2", TORCHLOOP_WORKER="external") as process:
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


def test_an_embedded_service_keeps_its_web_process_and_ends_with_its_input(tmp_path: Path) -> None:
    with _started(started_before(tmp_path), "--embedded", TORCHLOOP_WORKER="external") as process:
        assert process.stdin is not None
        assert process.stderr is not None
        next(line for line in process.stderr if "running on" in line)
        kept = [child.cmdline()[1:3] for child in psutil.Process(process.pid).children()]
        process.stdin.close()
        seen = process.stderr.read()
    assert kept == [["-m", "service.serve"]]
    assert process.returncode == 0
    assert "started again" not in seen


def test_a_port_that_is_taken_stops_the_start_before_the_worker(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with _started(tmp_path, TORCHLOOP_PORT=port, TORCHLOOP_WORKER="embedded") as process:
            assert process.stderr is not None
            said = process.stderr.read()
    assert process.returncode == 1
    [line] = said.splitlines()
    assert f"cannot listen on 127.0.0.1, port {port}" in line
    assert line.endswith("set TORCHLOOP_PORT")


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("nosuchhost.invalid", "cannot listen on nosuchhost.invalid, port 0 "),
        ("-", "cannot listen on -, port 0 "),
        ("192.0.2.1", "cannot listen on 192.0.2.1, port 0 "),  # an address for documentation, of no machine
        ("2001:db8::1", "cannot listen on 2001:db8::1, port 0 "),
        ("fe80::1%nosuchlink", "cannot listen on fe80::1%nosuchlink, port 0 "),
        ("x..y", "TORCHLOOP_HOST=x..y cannot be a host name"),
        ("x" * 64, f"TORCHLOOP_HOST={'x' * 64} cannot be a host name"),
    ],
)
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_host_that_cannot_be_listened_on_is_named_by_its_setting(
    host: str, words: str, processes: str, tmp_path: Path
) -> None:
    settings = {"TORCHLOOP_HOST": host, "TORCHLOOP_API_KEYS": "admin:x", "TORCHLOOP_WEB_PROCESSES": processes}
    with _started(tmp_path, **settings) as process:
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == 1
    [line] = said.splitlines()
    assert line.startswith(f"torchloop: {words}")
    assert "TORCHLOOP_HOST" in line
    assert "TORCHLOOP_PORT" not in line


def test_it_listens_on_an_address_in_brackets_among_the_variables_of_a_kubernetes_service(tmp_path: Path) -> None:
    variables = {"TORCHLOOP_SERVICE_HOST": "10.0.0.7", "TORCHLOOP_PORT_8000_TCP": "tcp://10.0.0.7:8000"}
    settings = {"TORCHLOOP_WORKER": "external", "TORCHLOOP_DATABASE_URL": "", "TORCHLOOP_LOG_FORMAT": "", **variables}
    with _started(started_before(tmp_path), TORCHLOOP_HOST="[::1]", **settings) as process:
        assert process.stderr is not None
        seen = ""
        for line in process.stderr:
            seen += line
            if "running on" in seen:
                break
        process.terminate()
        seen += process.stderr.read()
    if "Cannot assign" in seen or "not supported" in seen:
        pytest.skip("this machine has no IPv6")
    assert "running on http://[::1]:" in seen
    assert seen.count("variables=TORCHLOOP_PORT_8000_TCP, TORCHLOOP_SERVICE_HOST") == 1
