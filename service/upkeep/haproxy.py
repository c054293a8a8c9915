"""torchloop haproxy: the configuration of HAProxy with the nodes, or the servers of a running one."""

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from models.checkpoints.files import write_whole
from service.delivery.nodes import Node, Nodes
from service.errors import ServiceError
from service.settings import OptionParser, Settings, refuse
from service.store.database import Store
from service.upkeep.haproxy_config import configuration
from service.upkeep.haproxy_runtime import NoHAProxy, Runtime, commands
from service.upkeep.opened import run

_LOOK_S = 1.0
_FAILED = 1
_DESCRIPTION = (
    "Print the configuration of HAProxy with the services that share the database (torchloop nodes lists them), or "
    "write it to a file. With --socket, give the servers of a running HAProxy to these services instead: new ones are "
    "added, those that stop are drained. Use the settings of the service."
)


def main(words: Sequence[str] | None = None, *, prog: str = "torchloop haproxy") -> int:
    """Run the command. Returns the exit status: 1 if HAProxy or the file refuses, 2 if the store cannot be read."""
    parser = OptionParser(prog=prog, description=_DESCRIPTION, allow_abbrev=False)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--output", metavar="FILE", type=Path, help="write the configuration to a file, if it changed")
    where.add_argument("--socket", metavar="PATH", type=Path, help="the runtime socket of a running HAProxy")
    parser.add_argument("--watch", action="store_true", help="do it again every second; with --output or --socket")
    parser.add_argument("--bind", default="*:8080", metavar="ADDRESS", help="where HAProxy listens [*:8080]")
    text = "path of the runtime socket in the configuration [/run/haproxy/admin.sock]"
    parser.add_argument("--stats-socket", default="/run/haproxy/admin.sock", metavar="PATH", help=text)
    text = "servers in the configuration that --socket can give to nodes that come later [16]"
    parser.add_argument("--spare", type=_spare, default=16, metavar="NUMBER", help=text)
    return run(parser, words, _watch, _check)


def _check(parser: OptionParser, options: argparse.Namespace) -> None:
    if options.watch and not (options.socket or options.output):
        parser.error("--watch needs --socket or --output")


def _spare(word: str) -> int:
    if not re.fullmatch(r"\d{1,4}", word):
        raise argparse.ArgumentTypeError(f"{word} is not a number from 0 to 9999")
    return int(word)


def _watch(store: Store, _: Settings, options: argparse.Namespace) -> int:
    """Do it once, or every second: then what fails is said, and tried again."""
    nodes, said = Nodes(store), ""
    while True:
        try:
            _once(nodes.all(), options)
            said = ""
        except (NoHAProxy, ServiceError, OSError) as err:
            of_stdout = isinstance(err, OSError) and options.output is None
            if of_stdout or (isinstance(err, ServiceError) and not options.watch):
                raise
            reason = err.detail if isinstance(err, ServiceError) else str(err)
            if isinstance(err, OSError):
                reason = f"{options.output} cannot be written ({err.strerror})"
            if reason != said:
                refuse(reason, _FAILED)
            said = reason
        if not options.watch:
            return _FAILED if said else 0
        time.sleep(_LOOK_S)


def _once(found: Sequence[Node], options: argparse.Namespace) -> None:
    if options.socket:
        runtime = Runtime(options.socket)
        for command in list(commands(runtime.servers(), found)):
            runtime.apply(command)
            _say(command, options)
        return
    addresses = sorted({node.address for node in found if node.state == "serving"})
    text = configuration(addresses, bind=options.bind, stats_socket=options.stats_socket, spare=options.spare)
    if options.output is None:
        sys.stdout.write(json.dumps({"configuration": text}) + "\n" if options.json else text)
    elif not options.output.exists() or options.output.read_text() != text:
        write_whole(text.encode(), options.output)
        _say(f"wrote {options.output}", options)


def _say(line: str, options: argparse.Namespace) -> None:
    sys.stdout.write(f"{json.dumps({'done': line}) if options.json else line}\n")
    sys.stdout.flush()
