"""Run a command on an existing store: no database is created, and none is migrated."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence

from models import project
from models.project import ProjectError
from service.errors import ObjectsAway, ServiceError
from service.settings import OptionParser, Settings, SettingsError, from_environment, refuse
from service.store.database import Store

_WRONG = 2
Work = Callable[[Store, Settings, argparse.Namespace], int]
Check = Callable[[OptionParser, argparse.Namespace], None]


def _any(*_: object) -> None:
    """Accept all options."""


def run(parser: OptionParser, words: Sequence[str] | None, work: Work, check: Check = _any) -> int:
    """Parse the options, check them and do the work. Returns its exit status; 2 if it cannot be done, with the reason
    in a line.
    """
    logging.getLogger("service").addHandler(logging.NullHandler())  # what fails is said in that line
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    project.add_option(parser)
    try:
        options = parser.parse_args(project.take_option(sys.argv[1:] if words is None else words))
        check(parser, options)
        settings = from_environment(os.environ)
        project.of(os.environ).enter()
        store = Store.of(settings)
    except (SettingsError, ProjectError) as err:
        return refuse(str(err), _WRONG)
    try:
        store.require_schema()
        return work(store, settings, options)
    except ServiceError as err:
        why = err.why if isinstance(err, ObjectsAway) else ""
        return refuse(f"{err.detail} ({why})" if why else err.detail, _WRONG)
    finally:
        store.close()


def amount(number: int, noun: str) -> str:
    """Return `1 file`, `2,000 files`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
