"""python -m service.worker: the training process. Claims jobs, watches over the child that fits, registers the outcome.

Any number may run, on any machine that sees the database and the store folder. It never imports torch: all of that is
the child's, so that a crash or an out-of-memory kill of the fit never takes the worker along.
"""

if __name__ == "__main__":  # the imports below take time
    import gc

    from models.signals import exit_at_signals

    exit_at_signals(0)
    gc.disable()  # until main

import os
import platform
import sys
from collections.abc import Sequence

from models import device, garbage, project
from models.project import ProjectError
from models.signals import ignore_signals
from service.execution.stop import Stop
from service.jobs.resources import Resources
from service.jobs.worker import LEASE_S, Worker
from service.logs import configure_logging, log_uncaught
from service.settings import OptionParser, SettingsError, from_environment, log_service_variables, refuse
from service.store.database import Store

_LAST_RESORT_S = 20.0


def main(words: Sequence[str] | None = None, *, prog: str = "python -m service.worker") -> int:
    """Work until SIGINT, SIGTERM or SIGHUP, or, embedded, until the parent has ended. Returns the exit status."""
    garbage.resume()
    parser = OptionParser(prog=prog, description="Do training jobs.", allow_abbrev=False)
    parser.add_argument(
        "--lease-s",
        type=float,
        default=LEASE_S,
        help="a worker silent for this long loses its job [6]",
    )
    parser.add_argument(
        "--embedded",
        action="store_true",
        help="end when standard input does, as under python -m service",
    )
    project.add_option(parser)
    try:
        options = parser.parse_args(project.take_option(sys.argv[1:] if words is None else words))
    except ProjectError as err:
        return refuse(str(err), 2)
    stop = Stop()
    stop.at_signals()
    try:
        settings = from_environment(os.environ)
        project.of(os.environ).enter()
        store = Store.of(settings)
    except (SettingsError, ProjectError) as err:
        return refuse(str(err), 2)
    configure_logging(settings.log_format)
    log_uncaught()
    stop.exit_after(_LAST_RESORT_S)
    if options.embedded:
        stop.at_end_of_input()
    else:
        log_service_variables(os.environ)
        try:
            store.probe()
        except SettingsError as err:
            return refuse(str(err), 2)
    name = f"{platform.node()}-{os.getpid()}"
    here = Resources(cpus=device.cpus(), gpus=device.accelerators(settings.device))
    Worker(
        store,
        settings.data,
        name,
        device=settings.device,
        lease_s=options.lease_s,
        capacity=here,
        stopping=stop,
        judge_forms=settings.form != "fp32",
    ).run()
    store.close()
    ignore_signals()
    return 0


if __name__ == "__main__":
    sys.exit(main())
