"""Contract checks: what every spec and every recipe must keep. `torchloop check` and the test suite run the same ones.

The checks of specs are in `service.check`, those of recipes in `training.check`.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Generic, TypeVar

from models import project
from models.catalog import Found
from models.project import Project, ProjectError

T = TypeVar("T")


class Broken(Exception):
    """Error: a check failed. The message names the finding, and the change to make."""


def require(kept: bool, otherwise: str) -> None:
    """Raise Broken unless the condition holds."""
    if not kept:
        raise Broken(otherwise)


@dataclass(frozen=True, slots=True)
class Check(Generic[T]):
    """A promise, and the function that tries it: model name, spec or recipe, empty folder. It raises Broken."""

    promise: str
    run: Callable[[str, T, Path], None]


def checks(*functions: Callable[[str, T, Path], None]) -> tuple[Check[T], ...]:
    """Return a check for each function, with its name as the promise."""
    return tuple(Check(function.__name__.replace("_", " "), function) for function in functions)


@dataclass(frozen=True, slots=True)
class Command(Generic[T]):
    """Run the checks on the files of one package: `torchloop check [MODEL...]`.

    If `required`, a named model must have a file in this package.
    """

    package: str
    found: Callable[[], Found[T]]
    checks: Sequence[Check[T]]
    required: bool

    def main(self, words: Sequence[str] | None, prog: str) -> int:
        """Check the named models, by default all of the project folder, or all there are.

        Returns the exit status: 1 if a check failed, 2 for wrong arguments or a bad project folder.
        """
        try:
            rest = project.take_option(sys.argv[1:] if words is None else words)
            within = project.of(os.environ)
            within.enter()
        except ProjectError as err:
            sys.stderr.write(f"torchloop: {err}\n")
            return 2
        return self._check_all(rest, prog, within)

    def _check_all(self, words: Sequence[str], prog: str, within: Project) -> int:
        parser = argparse.ArgumentParser(prog=prog, description="Run the contract tests on models and recipes.")
        parser.add_argument("models", nargs="*", metavar="MODEL", help="default: every model of the project folder")
        project.add_option(parser)
        chosen: list[str] = parser.parse_args(words).models
        found = self.found()
        files = {*found.usable, *(Path(name).stem for name in found.left_aside)}
        if self.required and (unknown := sorted({*chosen} - files)):
            parser.error(f"there is no {self.package}/{unknown[0]}.py; there are {', '.join(sorted(files))}")
        offered = files if within.folder is None else files & within.names(self.package)
        names = sorted(files & {*chosen} if chosen else offered)
        broken = 0
        for name in names:
            if name in found.usable:
                broken += self._check(name, found.usable[name])
            else:
                broken += 1
                self._show_error(name)
        _say(f"{self.package}: {len(names)} checked, {broken} with a fault")
        return 1 if broken else 0

    def _check(self, name: str, subject: T) -> bool:
        """Run all checks on one model, and print a line for each. Returns whether one failed."""
        _say(f"{self.package}/{name}.py")
        broken = False
        for check in self.checks:
            fault = fault_of(check, name, subject)
            broken |= bool(fault)
            _say(f"  FAILED  {check.promise}: {fault}" if fault else f"  ok      {check.promise}")
        return broken

    def _show_error(self, name: str) -> None:
        """Import a file that was left aside once more, and print the traceback of its error, if it has one."""
        _say(f"{self.package}/{name}.py\n  FAILED  it was left aside; the log line above says why")
        try:
            import_module(f"{self.package}.{name}")
        except (Exception, SystemExit):  # noqa: BLE001 - a model author's code: it may raise anything
            traceback.print_exc()


def fault_of(check: Check[T], name: str, subject: T) -> str:
    """Run one check in a temporary folder. Returns the fault in one line; empty if there is none."""
    with TemporaryDirectory() as folder:
        try:
            check.run(name, subject, Path(folder))
        except Broken as err:
            return str(err)
        except Exception as err:  # noqa: BLE001 - a model author's code: it may raise anything
            frame = traceback.extract_tb(err.__traceback__)[-1]
            text = " ".join(f"{type(err).__name__}: {err}".split())
            return f"{text} ({'/'.join(Path(frame.filename).parts[-2:])}, line {frame.lineno})"
    return ""


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
