"""Composition root of the web processes on a node of a cluster: the supervisor of `python -m service`, its child.

Settings come from the environment of the node. The web processes answer without the cluster: while its head is away,
and, until they have answered the requests in progress, after the end of this process.
"""

import logging
import os
from collections.abc import Mapping

from models.project import of_any_folder
from service.execution.groups import Share
from service.execution.stop import Stop
from service.execution.supervisor import BROKEN, Kept
from service.logs import configure_logging, log_uncaught
from service.settings import PREFIX, from_environment

log = logging.getLogger(__name__)
_REFUSED = 2  # exit status of the service: a bad setting
_STOP_S = 25.0  # more than the last resort of the service, after the deadline of the requests in progress
_OF_THE_CLUSTER = "RAY_"
_THREADS = "OMP_NUM_THREADS"  # Ray sets it to the CPUs that it has set aside


def run(share: Share, node: str, stop: Stop) -> None:
    """Keep the web processes running until the stop is requested, or until they cannot start. Raises SettingsError."""
    settings = from_environment(os.environ)
    configure_logging(settings.log_format)
    log_uncaught()
    given = environment(os.environ, share)
    service = Kept(["service", "--embedded"], stop.set, environ=given, broken=(_REFUSED, BROKEN))
    service.start()
    log.info("web processes kept", extra={"node": node})
    stop.wait()
    service.ask_to_stop()
    service.wait(settings.request_timeout_s + _STOP_S)


def environment(environ: Mapping[str, str], share: Share) -> dict[str, str]:
    """Return the environment of the service: that of the node, without the variables of the cluster.

    Jobs are the cluster's, so no worker is embedded unless the node asks for one. Without a GPU, the service
    computes on the CPU, whatever the node says.
    """
    own = {name: value for name, value in environ.items() if not name.startswith(_OF_THE_CLUSTER) and name != _THREADS}
    own[f"{PREFIX}WORKER"] = environ.get(f"{PREFIX}WORKER", "").strip() or "external"
    if not share.gpus:
        own[f"{PREFIX}DEVICE"] = "cpu"
    return of_any_folder(own)
