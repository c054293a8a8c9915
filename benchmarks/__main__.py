"""python -m benchmarks [NAME...]: run these benchmarks, or all, and print their tables."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import benchmarks


def main(words: Sequence[str] | None = None) -> None:
    """Tables go to the standard output, one after the other."""
    names = [module.name for module in iter_modules(benchmarks.__path__) if module.name != "__main__"]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure speed, as ratios within one run."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which to run, of {', '.join(names)} (default all)")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each measurement (default %(default)s)")
    data = Path(os.environ.get("TORCHLOOP_DATA") or "data")
    parser.add_argument("--data", type=Path, default=data, help="folder of datasets (TORCHLOOP_DATA, else data)")
    options = parser.parse_args(words)
    if unknown := set(options.names) - set(names):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    for name in options.names or names:
        table = import_module(f"benchmarks.{name}").main(data=options.data, rounds=options.rounds)
        sys.stdout.write(f"{name}\n{table}\n\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
