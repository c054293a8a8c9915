"""torchloop cluster --web on a real Ray cluster on loopback: a group of web processes on each node.

One test has the whole story, since the start of a cluster takes longer than the rest.
"""

import http.client
from collections.abc import Mapping
from pathlib import Path

import httpx
import psutil
import pytest

from benchmarks.ray_cluster import INSTALLED, RayNodes, dispatcher, ray_nodes
from service.delivery.nodes import Nodes
from service.store.database import Store
from tests.fakes import started_before
from tests.waiting import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not INSTALLED, reason="TORCHLOOP CLUSTER --WEB IS NOT TESTED: Ray is missing; pip install ray"),
]
BODY = b'{"inputs": [[0.5]]}'
HEADERS = {"Content-Type": "application/json", "Content-Length": str(len(BODY))}


class Trial:
    """The nodes of a cluster, and what the services on them write of themselves."""

    def __init__(self, store: Store, nodes: RayNodes) -> None:
        self.nodes = nodes
        self._rows = Nodes(store)

    def rows(self, state: str) -> Mapping[str, str]:
        """Id of a service -> its address."""
        return {row.id: row.address for row in self._rows.all() if row.state == state}

    def serving(self, count: int) -> Mapping[str, str]:
        """Wait until so many services answer predictions."""
        found: Mapping[str, str] = until(lambda: rows if len(rows := self.rows("serving")) == count else None)
        until(lambda: all(_status(address, "GET", "/health/ready") == 200 for address in found.values()))
        assert {_status(address, "POST", "/predict/regressor") for address in found.values()} == {200}
        return found

    def process(self, node: str, module: str) -> psutil.Process:
        """The process of a node that runs a module of ours."""
        below = psutil.Process(self.nodes.nodes[node]).children(recursive=True)
        return next(one for one in below if one.cmdline()[1:3] == ["-m", module])

    def address(self, node: str) -> str:
        port = self.process(node, "service.serve").cmdline()[3]
        return f"127.0.0.1:{port}"


def _status(address: str, method: str, path: str) -> int:
    try:
        return httpx.request(method, f"http://{address}{path}", content=BODY, headers=HEADERS).status_code
    except httpx.TransportError:
        return 0


def is_replaced_without_a_dispatcher(trial: Trial, node: str) -> None:
    killed = trial.process(node, "service.serve")
    address = trial.address(node)
    killed.kill()
    until(lambda: not killed.is_running() and _status(address, "POST", "/predict/regressor") == 200)


def go_on_without_the_head(trial: Trial) -> None:
    before = trial.serving(2)
    trial.nodes.do("lose-head")
    assert trial.serving(2) == before
    trial.nodes.do("return-head")


def are_found_again(trial: Trial, before: Mapping[str, str], log: Path) -> None:
    until(lambda: "dispatcher started" in log.read_text())
    assert trial.serving(2) == before
    assert "web processes placed" not in log.read_text()


def answers_what_is_in_progress_when_it_leaves(trial: Trial, node: str) -> None:
    """`ray stop` sends SIGTERM."""
    address = trial.address(node)
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.putrequest("POST", "/predict/regressor")
    for header in HEADERS.items():
        connection.putheader(*header)
    connection.endheaders()
    assert _status(address, "GET", "/health/live") == 200  # by now the service has read the headers
    actor = trial.process(node, "service").parent()
    assert actor is not None
    actor.terminate()
    until(lambda: address in trial.rows("leaving").values())
    connection.send(BODY)
    response = connection.getresponse()
    assert (response.status, response.getheader("Connection")) == (200, "close")
    until(lambda: address not in {*trial.rows("leaving").values(), *trial.rows("silent").values()})


def test_each_node_of_a_cluster_serves(tmp_path: Path) -> None:
    store = Store(started_before(tmp_path / "store"))
    store.migrate()
    settings = {
        "TORCHLOOP_STORE": str(store.folder),
        "TORCHLOOP_PORT": "0",
        "RAY_gcs_storage": "rocksdb",
        "RAY_gcs_storage_path": str(tmp_path / "head"),
        "RAY_gcs_rpc_server_reconnect_timeout_s": "3600",
    }
    log = tmp_path / "log"
    with ray_nodes(2, settings) as nodes:
        trial = Trial(store, nodes)
        first, second = nodes.nodes
        with dispatcher(nodes, "--web"):
            before = trial.serving(2)
        is_replaced_without_a_dispatcher(trial, first)
        go_on_without_the_head(trial)
        with dispatcher(nodes, "--web", log=log):
            are_found_again(trial, before, log)
            answers_what_is_in_progress_when_it_leaves(trial, first)
            nodes.do(f"kill {second}")
            nodes.do("add")
            after = trial.serving(2)
            assert not before.keys() & after.keys()
    store.close()
