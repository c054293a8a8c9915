"""python -m benchmarks [NAME...]: run the named benchmarks (default: all) and print their tables."""

import argparse
import ast
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from benchmarks import Options, report


def main(words: Sequence[str] | None = None) -> None:
    """Print each table to stdout; with --write, also write all of them to one Markdown file."""
    names = discover(Path(__file__).parent)
    parser = _parser(names)
    given = parser.parse_args(words)
    if unknown := set(given.names) - set(names):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    for name in ("rounds", "seconds"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if given.write:
        given.write.parent.mkdir(parents=True, exist_ok=True)
    options = Options(data=given.data, rounds=given.rounds, seconds=given.seconds, whole=given.whole)
    tables = {}
    for name in given.names or names:
        tables[name] = import_module(f"benchmarks.{name}").main(options)
        sys.stdout.write(f"{name}\n{tables[name]}\n\n")
        sys.stdout.flush()
        if given.write:  # after each, so that a later failure loses nothing
            command = shlex.join(["python", "-m", "benchmarks", *(sys.argv[1:] if words is None else words)])
            given.write.write_text(report.markdown(command, report.facts(), tables))


def discover(folder: Path) -> list[str]:
    """Return the modules in `folder` that define `main`, without importing them."""

    def has_main(path: Path) -> bool:
        return any(
            isinstance(node, ast.FunctionDef) and node.name == "main" for node in ast.parse(path.read_text()).body
        )

    return [path.stem for path in sorted(folder.glob("[!_]*.py")) if has_main(path)]


def _parser(names: Sequence[str]) -> argparse.ArgumentParser:
    defaults = Options()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Run benchmarks and print their tables. Ratios are taken within one run.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"benchmark to run: {', '.join(names)} (default: all)")
    words = "repetitions of each measurement (default %(default)s)"
    parser.add_argument("--rounds", type=int, default=defaults.rounds, help=words)
    words = "duration of one measurement under load, in seconds (default %(default)s)"
    parser.add_argument("--seconds", type=int, default=defaults.seconds, help=words)
    words = "of cluster: outages of 5 and of 1 minutes and 50 jobs, not shorter and fewer ones"
    parser.add_argument("--whole", action="store_true", help=words)
    data = Path(os.environ.get("TORCHLOOP_DATA") or defaults.data)
    parser.add_argument("--data", type=Path, default=data, help="folder of datasets (default TORCHLOOP_DATA or data)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write the tables to this Markdown file")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # raise, as Ctrl-C does, so that the servers are stopped
    main()
