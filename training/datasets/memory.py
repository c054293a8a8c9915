"""A limit on the memory that reading a file may take, so that a file that is made to exhaust it fails alone."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.datasets.errors import DatasetError

LIMIT = 2 * 2**30  # bytes beyond those that the process has: ordinary files stay below 0.5 GB


@contextmanager
def limited() -> Iterator[None]:
    """Let this process allocate at most LIMIT more bytes. Raises DatasetError if the block needs more. On Linux only.

    The limit is on private memory, RLIMIT_DATA: files that are mapped do not count.
    """
    if sys.platform != "linux":
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bound = _data_bytes() + LIMIT
    if hard != resource.RLIM_INFINITY:
        bound = min(bound, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))
    try:
        yield
    except MemoryError as err:
        raise DatasetError(
            "Too much memory",
            f"reading the file takes more than {LIMIT / 2**30:g} GiB of memory: send several files, or smaller rows",
        ) from err
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int:
    """Return the private memory that this process has reserved, in bytes."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData:"))
    return int(line.split()[1]) * 1024
