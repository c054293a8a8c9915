"""Ray as a Cluster and as Sites: each attempt, and the web processes of each node, are a detached actor.

Ray starts an actor once and never again: the dispatcher, which places actors on new nodes in any case, places one again
that has ended, and waits ever longer if it ends at once.

The only module that imports Ray. Rows in the database decide which attempt counts; an actor that has lost its lease, or
never got it, writes nothing. So Ray need not be right about which node is alive.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import ray
from ray.exceptions import ActorAlreadyExistsError, AuthenticationError, RaySystemError
from ray.util import list_named_actors
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from service.execution.attempts import Attempt, Run
from service.execution.groups import Share
from service.execution.stop import Stop

log = logging.getLogger(__name__)
_NAMESPACE = "torchloop"
_NODE = "ray.io/node-id"  # a label that Ray gives each node


_PROBE_S = 60.0
_Work = Callable[[str, Stop], None]  # of an actor on the node with that id, until it is done or the stop is requested
Serve = Callable[[Share, str, Stop], None]  # keeps the web processes of a node


class NoCluster(Exception):
    """There is no cluster at the address, or it refuses this process."""


class Open(Exception):
    """The cluster has no authentication: whoever reaches it runs commands on every node."""


class _Actor:
    """A process on a node. SIGTERM, as `ray stop` sends it, ends its work in good order."""

    def __init__(self, name: str, do: _Work) -> None:
        context = ray.get_runtime_context()
        stop = Stop()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        leave = context.current_actor.leave.remote  # an actor that ends in another way keeps its CPUs
        node = context.get_node_id()

        def work() -> None:
            try:
                do(node, stop)
            except Exception:
                log.exception("actor failed", extra={"actor": name})
            finally:
                leave()

        # The constructor returns at once: Ray would repeat one that is cut short.
        threading.Thread(target=work, name="work", daemon=True).start()

    def leave(self) -> None:
        """End the process, and free its resources."""
        ray.actor.exit_actor()


class RayCluster:
    """The cluster that this process is connected to. Raises NoCluster, and Open."""

    def __init__(self, address: str, run: Run, serve: Serve) -> None:
        """`address` is that of the head, HOST:PORT, or "auto" for the cluster of this machine.

        `run` makes an attempt, `serve` keeps web processes. Nodes import them by their names, so they may not be in the
        module that is run.
        """
        self._run = run
        self._serve = serve
        try:
            ray.init(address, namespace=_NAMESPACE, log_to_driver=False, configure_logging=False)
        except (ConnectionError, RaySystemError, AuthenticationError, ValueError) as err:
            raise NoCluster(str(err).strip().splitlines()[0]) from err
        _require_authentication(ray.get_runtime_context().gcs_address)
        self._actor = ray.remote(_Actor)

    def placed(self) -> Collection[str]:
        """See Cluster."""
        return frozenset(list_named_actors())

    def place(self, attempt: Attempt, avoid: Collection[str]) -> bool:
        """See Cluster."""
        options: dict[str, Any] = {"num_cpus": attempt.cpus, "num_gpus": attempt.gpus}
        if avoid:
            nodes = f"in({','.join(sorted(avoid))})"
            options["label_selector"] = {_NODE: f"!{nodes}"}
            options["fallback_strategy"] = [{"label_selector": {_NODE: nodes}}]
        return self._start(attempt.name, partial(self._run, attempt), options)

    def nodes(self) -> Mapping[str, Share]:
        """See Sites."""
        return {
            node["NodeID"]: Share(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
            for node in ray.nodes()
            if node["Alive"]
        }

    def place_group(self, name: str, node: str, share: Share) -> bool:
        """See Sites."""
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        options = {"num_cpus": share.cpus, "num_gpus": share.gpus, "scheduling_strategy": there}
        return self._start(name, partial(self._serve, share), options)

    def _start(self, name: str, do: _Work, options: Mapping[str, Any]) -> bool:
        """Start an actor on a node. Returns False if there is one of that name."""
        once = {"lifetime": "detached", "max_restarts": 0, "max_task_retries": 0}
        try:
            self._actor.options(name=name, **once, **options).remote(name, do)
        except ActorAlreadyExistsError:
            return False
        return True

    def remove(self, name: str) -> None:
        """See Cluster."""
        try:
            ray.kill(ray.get_actor(name))
        except ValueError:  # it has ended
            return

    def close(self) -> None:
        """Disconnect. What is placed goes on."""
        ray.shutdown()


def _require_authentication(address: str) -> None:
    """Raise Open if the cluster accepts a process without a token. It accepts those with one in any case."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_")}
    environ["RAY_AUTH_MODE"] = "disabled"
    try:
        done = subprocess.run(command, env=environ, capture_output=True, timeout=_PROBE_S, check=False)
    except subprocess.TimeoutExpired as err:
        raise NoCluster("the head of the cluster does not answer") from err
    if done.returncode == 0:
        raise Open(
            "the Ray cluster accepts processes without a token, and so commands of anyone who reaches it: start all "
            "its nodes with RAY_AUTH_MODE=token"
        )
