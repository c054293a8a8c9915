"""Measurements, each a ratio within one run: every benchmarks/<name>.py with a function `main` is one.

    main(options: Options) -> str

returns a table. The other modules are shared by them.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Options:
    """The folder of datasets, how often to repeat each measurement, and how long one takes under load, in s."""

    data: Path = Path("data")
    rounds: int = 5
    seconds: int = 4
