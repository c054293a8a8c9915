"""Composition root of an attempt on a node of a cluster.

Settings come from the environment of the node, as those of a worker do, so that no secret passes through the cluster.
"""

import logging
import os

from models import project
from service.execution.attempts import Attempt, worker_of
from service.execution.stop import Stopping
from service.jobs.worker import Worker
from service.logs import configure_logging, log_uncaught
from service.settings import from_environment
from service.store.database import Store

log = logging.getLogger(__name__)


def run(attempt: Attempt, node: str, stopping: Stopping) -> None:
    """Make an attempt, if it is still to be made. Raises SettingsError, ProjectError."""
    settings = from_environment(os.environ)
    configure_logging(settings.log_format)
    log_uncaught()
    project.of(os.environ).enter()
    store = Store.of(settings)
    worker = Worker(
        store,
        settings.data,
        worker_of(node, attempt.name),
        device=settings.device if attempt.gpus else "cpu",
        lease_s=attempt.lease_s,
        stopping=stopping,
    )
    if not worker.attempt(attempt.job, attempt.number, attempt.beats):
        log.info("attempt not to be made", extra={"attempt": attempt.name})
    store.close()
