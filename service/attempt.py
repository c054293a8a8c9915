"""Composition root of an attempt on a node of a cluster.

Settings come from the environment of the node, as those of a worker do, so that no secret passes through the cluster.
"""

import logging
import os
from dataclasses import replace
from functools import partial
from threading import TIMEOUT_MAX

from models import project
from models.messages import Assist, Fit, decode_order, encode_message
from service.execution.attempts import Attempt, worker_of
from service.execution.peers import GroupChild, Peers
from service.execution.process import Child
from service.execution.stop import Stopping
from service.jobs.worker import Worker
from service.logs import configure_logging, log_uncaught
from service.settings import Settings, from_environment
from service.store.database import Store

log = logging.getLogger(__name__)


def run(attempt: Attempt, node: str, stopping: Stopping, peers: Peers | None) -> None:
    """Make an attempt, if it is still to be made. Raises SettingsError, ProjectError."""
    settings = _settings()
    store = Store.of(settings)
    worker = Worker(
        store,
        settings.data,
        worker_of(node, attempt.name),
        device=settings.device if attempt.gpus else "cpu",
        lease_s=attempt.lease_s,
        stopping=stopping,
        judge_forms=settings.form != "fp32",
        start_child=Child if peers is None else partial(GroupChild, peers),
    )
    if not worker.attempt(attempt.job, attempt.number, attempt.beats):
        log.info("attempt not to be made", extra={"attempt": attempt.name})
    store.close()


def assist(encoded: bytes, rank: int, with_gpu: bool) -> bytes:
    """Take part in the fit of an attempt on another node. See execution.attempts.Assist.

    Raises SettingsError, ProjectError.
    """
    settings = _settings()
    fit = decode_order(encoded)
    if not isinstance(fit, Fit) or fit.group is None:
        raise ValueError("not a fit of several nodes")
    store = Store.of(settings)
    storage, data = store.storage, fit.dataset
    location = storage.location(patient=True)
    if data is not None:
        data = replace(data, folder=storage.dataset(fit.model, data.sha256).resolve(), store=location)
    device = settings.device if with_gpu else "cpu"
    here = replace(fit, data=settings.data.resolve(), store=location, device=device, dataset=data)
    child = Child()
    answer = child.ask(Assist(fit=here, group=fit.group, rank=rank), TIMEOUT_MAX)
    child.stop()
    store.close()
    return b"" if answer is None else encode_message(answer)


def _settings() -> Settings:
    settings = from_environment(os.environ)
    configure_logging(settings.log_format)
    log_uncaught()
    project.of(os.environ).enter()
    return settings
