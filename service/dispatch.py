"""Composition root of the dispatcher, the child of `torchloop cluster`: connects to Ray, places missing processes."""

if __name__ == "__main__":  # the imports below take time
    from models.signals import exit_at_signals

    exit_at_signals(0)

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence

from service import attempt, group
from service.errors import StoreUnavailable
from service.execution.groups import Groups, Share
from service.execution.ray import NoCluster, Open, RayCluster
from service.execution.stop import Stop
from service.execution.supervisor import BROKEN
from service.jobs.dispatcher import Dispatcher
from service.jobs.resources import Resources
from service.logs import configure_logging, log_uncaught
from service.settings import from_environment
from service.store.database import Store

log = logging.getLogger(__name__)
_LOOK_S = 0.5
_AGAIN_S = 5.0
_LAST_RESORT_S = 20.0


def main(words: Sequence[str] | None = None) -> int:
    """Place jobs until standard input ends. Returns the exit status: BROKEN if another try would end the same way."""
    parser = argparse.ArgumentParser(prog="python -m service.dispatch")
    for name in ("--cpus", "--gpus", "--lease-s"):
        parser.add_argument(name, type=float, required=True)
    parser.add_argument("--address", required=True)
    for name in ("--web-cpus", "--web-gpus"):
        parser.add_argument(name, type=float, default=0.0)
    parser.add_argument("--web", action="store_true")
    parser.add_argument("heartbeat", type=int)
    options = parser.parse_args(words)
    os.set_inheritable(options.heartbeat, False)
    settings = from_environment(os.environ)
    configure_logging(settings.log_format)
    log_uncaught()
    stop = Stop()
    stop.at_end_of_input()
    stop.exit_after(_LAST_RESORT_S)

    def beat() -> None:
        os.write(options.heartbeat, b"\0")

    try:
        cluster = _connected(options.address, stop, beat)
    except Open as err:
        log.critical(str(err))
        return BROKEN
    stop.at_signals()  # Ray's own handlers would print stack traces
    store = Store.of(settings)
    default = Resources(cpus=options.cpus, gpus=options.gpus)
    dispatcher = Dispatcher(store, cluster, lease_s=options.lease_s, default=default)
    groups = Groups(cluster, Share(options.web_cpus, options.web_gpus)) if options.web else None
    _run(store, dispatcher, groups, stop, beat)
    store.close()
    cluster.close()
    return 0


def _connected(address: str, stop: Stop, beat: Callable[[], None]) -> RayCluster:
    """Connect, however long it takes. Raises Open."""
    said = ""
    while True:
        beat()
        try:
            return RayCluster(address, attempt.run, attempt.assist, group.run)
        except NoCluster as err:
            if said != str(err):
                said = str(err)
                log.warning("no Ray cluster, tried again", extra={"address": address, "reason": said})
        stop.at_signals()  # Ray's own handlers would print stack traces
        if stop.wait(_AGAIN_S):
            sys.exit(0)


def _run(store: Store, dispatcher: Dispatcher, groups: Groups | None, stop: Stop, beat: Callable[[], None]) -> None:
    """Look for waiting jobs, and nodes without web processes, until the stop is requested.

    Without the database, only the nodes are looked at.
    """
    migrated = False
    log.info("dispatcher started")
    while not stop.is_set():
        beat()
        if groups is not None:
            groups.look()
        with contextlib.suppress(StoreUnavailable):  # the store logs it
            if not migrated:
                store.migrate()
                migrated = True
            dispatcher.look()
        stop.wait(_LOOK_S)
    log.info("dispatcher stopped; what it has placed goes on")


if __name__ == "__main__":
    sys.exit(main())
