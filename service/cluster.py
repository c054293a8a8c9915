"""torchloop cluster: have training jobs, and web processes, run on the nodes of a Ray cluster.

This process is the supervisor of the dispatcher, its child, and loads no Ray: Ray ends a process that has lost the head
of the cluster for a minute, and its calls block until then. Placed processes go on without both.
"""

if __name__ == "__main__":  # the imports below take time
    from models.signals import exit_at_signals

    exit_at_signals(0)

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from models import project
from models.project import ProjectError, of_any_folder
from models.signals import ignore_signals
from service.execution.stop import Stop
from service.execution.supervisor import Kept
from service.jobs.resources import LEAST
from service.logs import configure_logging, log_uncaught
from service.settings import (
    OptionParser,
    Settings,
    SettingsError,
    for_worker,
    from_environment,
    log_service_variables,
    refuse,
)
from service.store.url import locate

_SILENT_S = 60.0  # of the dispatcher: a call of Ray blocks while the head of the cluster is away
_LEASE_S = 5.0  # less than a worker's: the process of a new attempt takes seconds to start
_STOP_S = 10.0
_LAST_RESORT_S = 20.0
_UNPROTECTED = (
    "RAY_AUTH_MODE is not token: without it, whoever reaches the ports of Ray runs commands on every node. Export "
    "RAY_AUTH_MODE=token for `ray start` on each node and for this command, and give all of them the token of `ray "
    "get-auth-token --generate`"
)
_DESCRIPTION = """\
Dispatch training jobs to the nodes of a Ray cluster: each waiting job gets a process of its own on a node
with the CPUs and GPUs that it asks for. It may run on any machine of the cluster, and on several at the
same time; the jobs go on without it. With --web, each node that offers CPUs also runs the service: its web
processes listen where the settings in the environment of the node say. See docs/several-machines.md.
"""


def main(words: Sequence[str] | None = None, *, prog: str = "python -m service.cluster") -> int:
    """Dispatch until SIGINT, SIGTERM or SIGHUP. Returns the status: 2 for a bad setting, 3 if it could not start."""
    try:
        options = _parser(prog).parse_args(project.take_option(sys.argv[1:] if words is None else words))
        settings = checked(os.environ)
        project.of(os.environ).enter()
    except (SettingsError, ProjectError) as err:
        return refuse(str(err), 2)
    configure_logging(settings.log_format)
    log_uncaught()
    log_service_variables(os.environ)
    stop = Stop()
    stop.at_signals()
    stop.exit_after(_LAST_RESORT_S)
    broken: list[bool] = []

    def give_up() -> None:
        broken.append(True)
        stop.set()

    command = ["service.dispatch", "--address", options.address, "--lease-s", str(options.lease_s)]
    command += ["--cpus", str(options.cpus), "--gpus", str(options.gpus)]
    if options.web:
        command += ["--web", "--web-cpus", str(options.web_cpus), "--web-gpus", str(options.web_gpus)]
    environ = {"RAY_USAGE_STATS_ENABLED": "0", **of_any_folder(for_worker(os.environ))}
    dispatcher = Kept(command, give_up, _SILENT_S, environ=environ)
    dispatcher.start()
    stop.wait()
    dispatcher.ask_to_stop()
    dispatcher.wait(_STOP_S)
    ignore_signals()
    return 3 if broken else 0


def checked(environ: Mapping[str, str]) -> Settings:
    """Return the settings, if a cluster can be used with them. Raises SettingsError."""
    settings = from_environment(environ)
    locate(settings.database_url, settings.store)
    if find_spec("ray") is None:
        raise SettingsError('Ray is not installed here: pip install "torchloop[ray]"')
    if environ.get("RAY_AUTH_MODE", "").lower() != "token":
        raise SettingsError(_UNPROTECTED)
    return settings


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = OptionParser(
        prog=prog, description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    text = "the head of the Ray cluster, as 10.0.0.1:6379 [RAY_ADDRESS, else the cluster of this machine]"
    default = os.environ.get("RAY_ADDRESS") or "auto"
    parser.add_argument("--address", metavar="HOST:PORT", type=_address, default=default, help=text)
    parser.add_argument("--cpus", type=_amount, default=1.0, help="CPUs of a job that asks for no number of them [1]")
    parser.add_argument("--gpus", type=_gpus, default=0.0, help="GPUs, or the part of one, likewise [0]")
    text = f"a job whose attempt is silent for this long is placed again [{_LEASE_S:g}]"
    parser.add_argument("--lease-s", type=_lease, default=_LEASE_S, help=text)
    text = "run the service on each node that offers CPUs, and start it again if it ends"
    parser.add_argument("--web", action="store_true", help=text)
    text = "CPUs that Ray sets aside for it on each node [0: none, predictions share them with jobs]"
    parser.add_argument("--web-cpus", type=_amount, default=0.0, help=text)
    text = "GPUs likewise, at most those of the node; without, it computes on the CPU [0]"
    parser.add_argument("--web-gpus", type=_gpus, default=0.0, help=text)
    project.add_option(parser)
    return parser


def _address(word: str) -> str:
    if word != "auto" and not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+):\d{1,5}", word):
        raise argparse.ArgumentTypeError(f"{word} is no address of a head: write it as 10.0.0.1:6379")
    return word


def _number(word: str, least: float) -> float:
    try:
        number = float(word)
    except ValueError:
        number = -1
    if not least <= number <= 4096:
        raise argparse.ArgumentTypeError(f"{word} is not a number from {least:g} to 4096")
    return number


def _lease(word: str) -> float:
    return _number(word, 1)


def _amount(word: str) -> float:
    number = _number(word, 0)
    if 0 < number < LEAST:
        raise argparse.ArgumentTypeError(f"{word} is less than {LEAST:g}, and not 0")
    return number


def _gpus(word: str) -> float:
    number = _amount(word)
    if number > 1 and not number.is_integer():
        raise argparse.ArgumentTypeError(f"{word} is more than one GPU, and no whole number of them")
    return number


if __name__ == "__main__":
    sys.exit(main())
