"""Benchmarks that compare measurements of one run. Each benchmarks/<name>.py that defines `main` is a benchmark:

    main(options: Options) -> str

It returns a table. The other modules are shared code.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Options:
    """Folder of datasets, number of repetitions of each measurement, and duration of one under load, in s.

    `whole`: as long and as many as the aims say, even if that takes most of an hour.
    """

    data: Path = Path("data")
    rounds: int = 5
    seconds: int = 4
    whole: bool = False
