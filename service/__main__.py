"""python -m service: the service. Settings come from the environment; --help lists them."""

if __name__ == "__main__":  # the imports below take time
    from models.signals import exit_at_signals

    exit_at_signals(0)

import argparse
import errno
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from tempfile import TemporaryDirectory

from models import device, project
from models.project import ProjectError, of_any_folder
from models.signals import ignore_signals
from service.execution.stop import Stop
from service.execution.supervisor import BROKEN, SILENT_S, Kept
from service.logs import configure_logging, log_uncaught
from service.serve import serve
from service.settings import (
    PREFIX,
    OptionParser,
    Settings,
    SettingsError,
    for_worker,
    from_environment,
    log_service_variables,
    refuse,
)
from service.store.url import locate
from service.web.server import listen

_WORKER = ["service.worker", "--embedded"]
_WORKER_STOP_S = 10.0
_REPLACING = ("host", "port")  # options that replace settings
_LAST_RESORT_S = 20.0  # after the deadline of the requests in progress


def main(words: Sequence[str] | None = None, *, prog: str = "python -m service") -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP. Returns the exit status: 2 for a bad setting, 3 if it could not start."""
    try:
        options = _parser(prog).parse_args(project.take_option(sys.argv[1:] if words is None else words))
        os.environ.update(_from_options(options))  # the other processes read it, too
        settings = from_environment(os.environ)
        locate(settings.database_url, settings.store)
        devices = device.each(settings.device)
        settings = _of_all(settings, devices)
        project.of(os.environ).enter()
    except (SettingsError, ProjectError, ValueError) as err:
        return refuse(str(err), 2)
    configure_logging(settings.log_format)
    log_uncaught()
    stop = Stop()
    stop.at_signals()
    stop.exit_after(settings.request_timeout_s + _LAST_RESORT_S)
    if options.embedded:
        stop.at_end_of_input()
    log_service_variables(os.environ)
    if refusal := _refusal(settings):
        return refuse(refusal, 2)
    try:  # first of all: if the port is in use, nothing is started
        several = options.embedded or settings.web_processes > 1
        bound = _bound(settings, several=several)
    except (OSError, UnicodeError) as err:
        return refuse(_not_listening(settings, err), 1)
    worker = Kept(_WORKER, stop.set, environ=of_any_folder(for_worker(os.environ)))

    def stop_worker() -> None:
        worker.ask_to_stop()
        worker.wait(_WORKER_STOP_S)

    def leave() -> None:
        stop_worker()
        os._exit(0)

    try:
        with bound:
            if settings.worker == "embedded":
                worker.start()
            if several:
                return _several_processes(settings, devices, bound.getsockname()[1], stop)
            own = settings.model_copy(update={"device": devices[0]})
            return 0 if serve(own, bound, stop, leave) else BROKEN
    finally:
        stop_worker()
        ignore_signals()


def _refusal(settings: Settings) -> str:
    """Return why the object store of the settings cannot be used; empty if it can, or if there is none.

    One that cannot be reached now may be used: the service starts, and tries again.
    """
    if "://" not in settings.artifacts:
        return ""
    from service.store.database import Store  # noqa: PLC0415 - the parent of several processes opens no store

    try:
        store = Store.of(settings)
        store.probe()
        store.close()
    except SettingsError as err:
        return str(err)
    return ""


def _of_all(settings: Settings, devices: Sequence[str]) -> Settings:
    """Return the settings with the web processes of all devices. Raises SettingsError if these are too many."""
    return from_environment({**os.environ, f"{PREFIX}WEB_PROCESSES": str(settings.web_processes * len(devices))})


def environments(environ: Mapping[str, str], devices: Sequence[str], processes: int) -> list[dict[str, str]]:
    """Return the environment of each of a number of web processes: they get the devices in turn."""
    common = {**of_any_folder(environ), f"{PREFIX}WEB_PROCESSES": str(processes)}
    return [{**common, f"{PREFIX}DEVICE": devices[number % len(devices)]} for number in range(processes)]


def _bound(settings: Settings, *, several: bool) -> socket.socket:
    """Return a socket bound to the port, shared if the web processes are children.

    Raises OSError if another service uses the port or the host is unknown, UnicodeError if it cannot be a name.
    """
    if several:  # a shared port can be bound although another service shares it, too
        listen(settings.host, settings.port, shared=False).close()
    return listen(settings.host, settings.port, shared=several)


def _not_listening(settings: Settings, err: OSError | UnicodeError) -> str:
    """Return the message of a failed `_bound`, with the setting to change."""
    if isinstance(err, UnicodeError):
        return f"{PREFIX}HOST={settings.host} cannot be a host name: write a name or an address, as in 127.0.0.1"
    cause = "PORT" if err.errno in {errno.EADDRINUSE, errno.EACCES} else "HOST"
    return f"cannot listen on {settings.host}, port {settings.port} ({err.strerror}): set {PREFIX}{cause}"


def _several_processes(settings: Settings, devices: Sequence[str], port: int, stop: Stop) -> int:
    """Run web processes that share a port, each started again, on its device, when it ends or hangs."""
    broken: list[bool] = []

    def give_up() -> None:
        broken.append(True)
        stop.set()

    with TemporaryDirectory() as folder:
        words = ["service.serve", str(port), folder]
        given = environments(os.environ, devices, settings.web_processes)
        processes = [Kept(words, give_up, SILENT_S, environ=environ) for environ in given]
        for process in processes:
            process.start()
        stop.wait()
        for process in processes:
            process.ask_to_stop()
        until = time.monotonic() + settings.request_timeout_s + 5
        for process in processes:
            process.wait(max(0.0, until - time.monotonic()))
    return BROKEN if broken else 0


def _shown(default: object) -> str:
    """Return a default for --help: empty if the setting is not set."""
    return "" if default in ("", (), None) else str(default)


def _from_options(options: argparse.Namespace) -> dict[str, str]:
    """Return the settings that options make, as environment variables."""
    given = {name: getattr(options, name) for name in _REPLACING}
    return {f"{PREFIX}{name.upper()}": value for name, value in given.items() if value is not None}


def _parser(prog: str) -> argparse.ArgumentParser:
    defaults = Settings()
    lines = [
        f"  {PREFIX}{name.upper():<20} {field.description} [{_shown(getattr(defaults, name))}]"
        for name, field in Settings.model_fields.items()
    ]
    parser = OptionParser(
        prog=prog,
        description="Serve the models over HTTP.",
        epilog="settings, from the environment [default]:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for name in _REPLACING:
        parser.add_argument(f"--{name}", help=f"as {PREFIX}{name.upper()}, which it replaces")
    text = "end when standard input does, and keep even a single web process from outside of it, as under a cluster"
    parser.add_argument("--embedded", action="store_true", help=text)
    project.add_option(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
