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
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import ray
from ray.exceptions import ActorAlreadyExistsError, AuthenticationError, RayError, RaySystemError
from ray.util import get_node_ip_address, list_named_actors
from ray.util.placement_group import (
    PlacementGroup,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from models.groups import Group
from service.execution.attempts import Assist, Attempt, Run, Unplaceable, job_and_number
from service.execution.groups import Share
from service.execution.stop import Stop

log = logging.getLogger(__name__)
_NAMESPACE = "torchloop"
_NODE = "ray.io/node-id"  # a label that Ray gives each node


_PROBE_S = 60.0
_Work = Callable[[str, Stop], None]  # of an actor on the node with that id, until it is done or the stop is requested
Serve = Callable[[Share, str, Stop], None]  # keeps the web processes of a node
_SMALLEST = {"CPU": 0.01}  # for an attempt without CPUs and GPUs: Ray reserves no empty bundles
_EMPTY_S = 2.0  # between the reservation of an attempt and its actor, at the most


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


def _attempt(attempt: Attempt, run: Run, assist: Assist, node: str, stop: Stop) -> None:
    """Make an attempt in the process of its first node."""
    if attempt.nodes == 1:
        run(attempt, node, stop, None)
        return
    group = get_placement_group(attempt.name)
    try:
        run(attempt, node, stop, _RayPeers(group, attempt, assist))
    finally:
        remove_placement_group(group)  # this ends the processes in it


class _Peer:
    """The process of an attempt on another of its nodes. Ray ends it together with the actor that made it."""

    def assist(self, assist: Assist, fit: bytes, rank: int, with_gpu: bool) -> bytes:
        """See Assist."""
        return assist(fit, rank, with_gpu)


class _RayPeers:
    """The other nodes of an attempt, as Peers."""

    def __init__(self, placed: PlacementGroup, attempt: Attempt, assist: Assist) -> None:
        self.group = Group(address=get_node_ip_address(), size=attempt.nodes)
        self._placed = placed
        self._attempt = attempt
        self._assist = assist
        self._actors: list[Any] = []
        self._at_work: list[Any] = []

    def start(self, fit: bytes) -> None:
        """See Peers."""
        attempt = self._attempt
        for rank in range(1, attempt.nodes):
            peer = (
                ray.remote(_Peer)
                .options(
                    num_cpus=attempt.cpus,
                    num_gpus=attempt.gpus,
                    max_restarts=0,
                    scheduling_strategy=PlacementGroupSchedulingStrategy(self._placed, rank),
                )
                .remote()
            )
            self._actors.append(peer)  # Ray ends an actor that nothing refers to
            self._at_work.append(peer.assist.remote(self._assist, fit, rank, bool(attempt.gpus)))

    def ended(self, timeout_s: float) -> Sequence[bytes | None]:
        """See Peers."""
        if not self._at_work:
            return []
        done, self._at_work = ray.wait(self._at_work, num_returns=1, timeout=timeout_s, fetch_local=False)
        return [_result(one) for one in done]


def _result(one: Any) -> bytes | None:
    try:
        return bytes(ray.get(one))
    except RayError as err:
        log.warning("peer lost", extra={"reason": str(err).strip().splitlines()[0]})
        return None


class RayCluster:
    """The cluster that this process is connected to. Raises NoCluster, and Open."""

    def __init__(self, address: str, run: Run, assist: Assist, serve: Serve) -> None:
        """`address` is that of the head, HOST:PORT, or "auto" for the cluster of this machine.

        `run` makes an attempt, with the help of `assist` on its other nodes, and `serve` keeps web processes. Nodes
        import them by their names, so they may not be in the module that is run.
        """
        self._run = run
        self._assist = assist
        self._serve = serve
        self._empty: dict[str, float] = {}  # name of a placement group without its attempt -> since when
        try:
            ray.init(address, namespace=_NAMESPACE, log_to_driver=False, configure_logging=False)
        except (ConnectionError, RaySystemError, AuthenticationError, ValueError) as err:
            raise NoCluster(str(err).strip().splitlines()[0]) from err
        _require_authentication(ray.get_runtime_context().gcs_address)
        self._actor = ray.remote(_Actor)

    def placed(self) -> Collection[str]:
        """See Cluster."""
        names = frozenset(list_named_actors())
        self._free(names)
        return names

    def place(self, attempt: Attempt, avoid: Collection[str]) -> bool:
        """See Cluster."""
        options: dict[str, Any] = {"num_cpus": attempt.cpus, "num_gpus": attempt.gpus}
        if attempt.nodes > 1:
            group = _reserved(attempt, avoid)
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(group, 0)
        elif avoid:
            nodes = f"in({','.join(sorted(avoid))})"
            options["label_selector"] = {_NODE: f"!{nodes}"}
            options["fallback_strategy"] = [{"label_selector": {_NODE: nodes}}]
        return self._start(attempt.name, partial(_attempt, attempt, self._run, self._assist), options)

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
        """Start an actor on a node. Returns False if there is one of that name. Raises Unplaceable."""
        once = {"lifetime": "detached", "max_restarts": 0, "max_task_retries": 0}
        try:
            self._actor.options(name=name, **once, **options).remote(name, do)
        except ActorAlreadyExistsError:
            return False
        except ValueError as err:  # of the options
            raise Unplaceable(str(err)) from err
        return True

    def _free(self, attempts: Collection[str]) -> None:
        """Give up the reservations of attempts whose first node was lost."""
        groups = [group for group in placement_group_table().values() if group["state"] != "REMOVED"]
        at = time.monotonic()
        names = {group["name"] for group in groups if job_and_number(group["name"])}
        self._empty = {name: self._empty.get(name, at) for name in names - set(attempts)}
        for name, since in self._empty.items():
            if at - since > _EMPTY_S:
                remove_placement_group(get_placement_group(name))

    def remove(self, name: str) -> None:
        """See Cluster."""
        try:
            ray.kill(ray.get_actor(name))
        except ValueError:  # it has ended
            return

    def close(self) -> None:
        """Disconnect. Placed processes go on."""
        ray.shutdown()


def _reserved(attempt: Attempt, avoid: Collection[str]) -> PlacementGroup:
    """Reserve the resources of an attempt on several nodes: not on those to avoid, if the others are enough.

    Raises Unplaceable.
    """
    bundle = {name: number for name, number in (("CPU", attempt.cpus), ("GPU", attempt.gpus)) if number} or _SMALLEST
    usable = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in avoid and _has(node, bundle)]
    selector = {_NODE: f"!in({','.join(sorted(avoid))})"} if avoid and len(usable) >= attempt.nodes else {}
    try:
        return placement_group(
            [bundle] * attempt.nodes,
            "STRICT_SPREAD",
            name=attempt.name,
            lifetime="detached",
            bundle_label_selector=[selector] * attempt.nodes,
        )
    except RaySystemError:  # of another dispatcher
        return get_placement_group(attempt.name)
    except ValueError as err:  # of the bundles
        raise Unplaceable(str(err)) from err


def _has(node: Mapping[str, Any], bundle: Mapping[str, float]) -> bool:
    return all(node["Resources"].get(name, 0) >= number for name, number in bundle.items())


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
