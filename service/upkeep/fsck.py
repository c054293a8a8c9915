"""torchloop fsck: compare the files of the store with the database, and name the faults."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

from service.settings import OptionParser, Settings
from service.store.database import Store
from service.upkeep.faults import Checker
from service.upkeep.opened import amount, run

_DESCRIPTION = (
    "Name files of versions, and of dataset versions, that are missing or damaged, files that belong to no version or "
    "job, and rows that contradict each other. Every file of weights, artifacts and exports is read, and of datasets "
    "each uploaded file, manifest and index; nothing is changed. The service may run meanwhile. Use the settings of "
    "the service."
)


def main(words: Sequence[str] | None = None, *, prog: str = "torchloop fsck") -> int:
    """Run the command. Returns the exit status: 1 if something is wrong, 2 if nothing could be checked."""
    parser = OptionParser(
        prog=prog,
        description=_DESCRIPTION,
        epilog="exit status: 0 if nothing is wrong, 1 if something is, 2 if the store cannot be checked",
        allow_abbrev=False,
    )
    return run(parser, words, _check)


def _check(store: Store, _: Settings, options: argparse.Namespace) -> int:
    found = Checker(store, time.time()).check()
    if options.json:
        sys.stdout.write(f"{json.dumps(asdict(found))}\n")
    else:
        sys.stdout.writelines(f"{fault.kind}: {fault.where}: {fault.detail}\n" for fault in found.faults)
        counts = (found.versions, "version"), (found.datasets, "dataset version"), (found.files, "file")
        looked_at = ", ".join(amount(count, noun) for count, noun in (*counts, (found.bytes, "byte")))
        sys.stdout.write(f"checked {looked_at}: {amount(len(found.faults), 'fault')}\n")
    return 1 if found.faults else 0
