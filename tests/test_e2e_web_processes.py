"""Web processes: how they start, share a port, are replaced and stop."""

import http.client
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from service.execution.supervisor import BROKEN, Kept
from tests.fakes import ROOT, running_server
from tests.waiting import until

pytestmark = pytest.mark.slow

BODY = b'{"inputs": [[0.5]]}'
TWO = {"TORCHLOOP_WEB_PROCESSES": "2"}
HEADERS = {"Content-Type": "application/json"}


def below(module: str) -> list[psutil.Process]:
    """The processes of ours that run `python -m module`."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[1:3] == ["-m", module]:
                found.append(process)
        except psutil.Error:
            continue
    return found


def connected(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_stopping_service_answers_every_request_that_it_is_sent(processes: str) -> None:
    warm = threading.Semaphore(0)

    def ask_until_told_to_close(url: str) -> int:
        connection, answers = connected(url), 0
        while True:
            connection.request("POST", "/predict/regressor", BODY, HEADERS)
            response = connection.getresponse()
            assert response.status == 200
            assert b'"value"' in response.read()
            answers += 1
            if answers == 20:
                warm.release()
            if response.getheader("Connection") == "close":
                return answers

    with running_server({"TORCHLOOP_WEB_PROCESSES": processes}) as url, ThreadPoolExecutor(4) as pool:
        running = [pool.submit(ask_until_told_to_close, url) for _ in range(4)]
        for _ in running:
            warm.acquire()
        (service,) = below("service")
        service.send_signal(signal.SIGTERM)
        assert all(future.result(60) > 20 for future in running)
        assert service.wait(30) in {0, None}


def test_a_request_that_is_half_there_when_the_service_stops_is_answered() -> None:
    with running_server({}) as url:
        connection = connected(url)
        connection.putrequest("POST", "/predict/regressor")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(BODY)))
        connection.endheaders()
        assert httpx.get(f"{url}/health/live").status_code == 200  # by now the service has read the headers
        (service,) = below("service")
        service.send_signal(signal.SIGTERM)
        until(lambda: refused(url))
        connection.send(BODY)
        response = connection.getresponse()
        assert (response.status, response.getheader("Connection")) == (200, "close")


def refused(url: str) -> bool:
    try:
        httpx.get(f"{url}/health/live")
    except httpx.TransportError:
        return True
    return False


def answered_by(url: str, count: int) -> list[int]:
    """Return the versions that answered, each request on a new connection."""
    return [
        int(httpx.post(f"{url}/predict/regressor", content=BODY, headers=HEADERS).headers["X-Model-Version"])
        for _ in range(count)
    ]


def test_when_promote_answers_every_web_process_has_swapped() -> None:
    with running_server(TWO) as url, httpx.Client(base_url=url, timeout=60) as client:
        until(lambda: len(gauges(url)) == 2)
        content = client.get("/models/regressor/versions/1/checkpoint").content
        assert client.post("/models/regressor/versions", content=content).json()["version"] == 2
        assert client.post("/models/regressor/promote", json={"version": 2}).json() == {
            "model": "regressor",
            "live": 2,
            "previous": 1,
            "waiting_for": [],
        }
        assert set(answered_by(url, 24)) == {2}
        assert client.post("/models/regressor/rollback").json()["live"] == 1
        assert set(answered_by(url, 24)) == {1}
        until(lambda: 'torchloop_requests_total{model="regressor",status="200"} 48.0' in client.get("/metrics").text)


def gauges(url: str) -> list[str]:
    """The processes whose loaded version /metrics tells."""
    return re.findall(r'loaded_version{model="regressor",pid="(\d+)"}', httpx.get(f"{url}/metrics").text)


def test_a_web_process_that_dies_is_replaced_while_the_other_answers() -> None:
    with running_server(TWO) as url:
        until(lambda: len(gauges(url)) == 2)
        victim = below("service.serve")[0]
        victim.kill()
        until(lambda: not victim.is_running())
        assert set(answered_by(url, 10)) == {1}
        until(lambda: len(gauges(url)) == 2 and str(victim.pid) not in gauges(url))
        assert set(answered_by(url, 10)) == {1}


def test_a_web_process_that_hangs_is_replaced_and_requests_go_on() -> None:
    with running_server(TWO) as url:
        until(lambda: len(gauges(url)) == 2)
        victim = below("service.serve")[0]
        victim.suspend()
        until(lambda: not victim.is_running())
        until(lambda: len(gauges(url)) == 2 and str(victim.pid) not in gauges(url))
        assert set(answered_by(url, 10)) == {1}


def test_web_processes_end_with_the_service_however_it_ends() -> None:
    with running_server(TWO) as url:
        until(lambda: len(gauges(url)) == 2)
        (service,) = below("service")
        children = service.children(recursive=True)
        service.kill()
        _, alive = psutil.wait_procs(children, timeout=60)
        assert not alive


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_port_in_use_is_reported_in_one_line(processes: str) -> None:
    with running_server({}) as url:
        second = subprocess.run(
            [sys.executable, "-m", "service"],
            cwd=ROOT,
            env={
                "TORCHLOOP_PORT": str(urlsplit(url).port),
                "TORCHLOOP_WEB_PROCESSES": processes,
                "TORCHLOOP_WORKER": "external",
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert second.returncode == 1
    assert re.fullmatch(
        r"torchloop: cannot listen on 127\.0\.0\.1, port \d+ \(Address already in use\): set TORCHLOOP_PORT\n",
        second.stderr,
    )


@pytest.mark.parametrize(("status", "starts"), [(BROKEN, 1), (1, 2)])
def test_a_process_that_cannot_start_is_not_tried_again_and_one_that_dies_is(
    status: int,
    starts: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "short_lived.py").write_text(f"import sys; open('started', 'a').write('.'); sys.exit({status})")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    broken = threading.Event()
    kept = Kept(["short_lived"], broken.set, restart_s=0)
    kept.start()
    until(lambda: (tmp_path / "started").exists() and len((tmp_path / "started").read_text()) >= starts)
    if status == BROKEN:
        assert broken.wait(60)
    kept.ask_to_stop()
    kept.wait(60)
    assert broken.is_set() == (status == BROKEN)
    assert status != BROKEN or (tmp_path / "started").read_text() == "."


def test_a_process_that_was_never_started_needs_no_waiting() -> None:
    kept = Kept(["service.worker"], lambda: None)
    kept.ask_to_stop()
    kept.wait(0)
