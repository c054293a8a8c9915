"""A Ray cluster on loopback: python -m benchmarks.ray_nodes NODES. Its own process, so that tests do not load Ray.

A head without CPUs, and nodes of one CPU and one pretended GPU each. It prints {"address", "nodes": {id: pid of the
raylet}} as a line of JSON, then obeys lines of its input and answers each by such a line: `kill ID`, `freeze ID`, `thaw
ID`, `add`, `lose-head`, `return-head`. It ends at the end of its input.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from typing import Any

import psutil
from ray.cluster_utils import Cluster

_MEMORY = 80 * 2**20


class Nodes:
    """The nodes, by their ids."""

    def __init__(self, count: int) -> None:
        common = {"node_ip_address": "127.0.0.1", "object_store_memory": _MEMORY}
        self._cluster = Cluster(
            initialize_head=True, head_node_args={**common, "num_cpus": 0, "include_dashboard": False}
        )
        self._address = self._cluster.address  # unknown to it while its head is lost
        self._common = common
        self._nodes: dict[str, Any] = {}
        for _ in range(count):
            self.add()

    def add(self) -> None:
        """Start a node."""
        node = self._cluster.add_node(num_cpus=1, num_gpus=1, **self._common)
        self._nodes[node.node_id] = node

    def signal(self, node_id: str, number: int) -> None:
        """Send a signal to the raylet of a node and to all processes below it."""
        with suppress(psutil.NoSuchProcess):
            raylet = psutil.Process(self._pid(node_id))
            for process in (raylet, *raylet.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)

    def kill(self, node_id: str) -> None:
        """End a node as a power failure would."""
        self.signal(node_id, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self._pid(node_id), 0)  # its workers take a zombie for alive
        del self._nodes[node_id]

    def lose_head(self) -> None:
        """Kill the process of the head that knows the nodes and the actors."""
        self._cluster.head_node.kill_gcs_server()

    def return_head(self) -> None:
        """Start it again; it knows what it knew only with RAY_gcs_storage=rocksdb."""
        self._cluster.head_node.start_gcs_server()

    def state(self) -> str:
        """Return the line that describes the cluster."""
        return json.dumps({"address": self._address, "nodes": {name: self._pid(name) for name in self._nodes}})

    def stop(self) -> None:
        """End the cluster."""
        self._cluster.shutdown()

    def _pid(self, node_id: str) -> int:
        return int(self._nodes[node_id].all_processes["raylet"][0].process.pid)


def run() -> None:
    """Run the cluster."""
    nodes = Nodes(int(sys.argv[1]))
    sys.stdout.write(f"{nodes.state()}\n")
    sys.stdout.flush()
    for line in sys.stdin:
        verb, *rest = line.split()
        match verb:
            case "add":
                nodes.add()
            case "lose-head":
                nodes.lose_head()
            case "return-head":
                nodes.return_head()
            case "kill":
                nodes.kill(*rest)
            case "freeze":
                nodes.signal(rest[0], signal.SIGSTOP)
            case "thaw":
                nodes.signal(rest[0], signal.SIGCONT)
        sys.stdout.write(f"{nodes.state()}\n")
        sys.stdout.flush()
    nodes.stop()


if __name__ == "__main__":
    run()
