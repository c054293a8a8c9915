"""python -m service.dataset MODEL NAME[@VERSION]: find a dataset version in the store.

`python -m training MODEL --dataset` calls it, because training must not import the service. It needs the store and the
database, not a running service.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from models.errors import CheckpointError
from service.data.datasets import Datasets
from service.errors import NotFound
from service.settings import OptionParser, Settings
from service.store.database import Store
from service.upkeep import opened


def main(words: Sequence[str] | None = None) -> int:
    """Print name@version, SHA-256, folder and location of the store as JSON.

    Returns the exit status, 2 if there is no such version.
    """
    parser = OptionParser(prog="python -m service.dataset", description="Find a dataset version in the store.")
    parser.add_argument("model")
    parser.add_argument("dataset", help="name@version, or a bare name for its newest version")
    return opened.run(parser, words, _find)


def _find(store: Store, _: Settings, options: argparse.Namespace) -> int:
    with store.read() as connection:
        found = Datasets(store).find(connection, options.model, options.dataset)
    try:
        folder = store.storage.fetch_dataset(options.model, found.sha256).resolve()
    except CheckpointError as err:
        raise NotFound(f"{found.label}: {err}") from err
    location = {**asdict(store.storage.location()), "root": str(store.folder.resolve())}
    said = {"label": found.label, "sha256": found.sha256, "folder": str(folder), "store": location}
    sys.stdout.write(json.dumps(said) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
