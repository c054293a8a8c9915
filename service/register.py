"""python -m service.register MODEL FILE.pt: register a checkpoint as a version.

`python -m training MODEL --register` calls it. It needs the store and the database, not a running service, and
promotes nothing.
"""

if __name__ == "__main__":  # the imports below take time
    from models.signals import exit_at_signals

    exit_at_signals()

import argparse
import os
import sys
import time
from pathlib import Path

from models import project
from models.catalog import specs
from models.checkpoints import artifact_files, state_dict
from models.checkpoints.files import unwritable
from models.checkpoints.record import Record
from models.errors import CheckpointError
from models.project import ProjectError
from models.signals import INTERRUPTED, Interruption
from service.delivery.registry import Registry
from service.errors import ServiceError
from service.settings import SettingsError, from_environment, refuse
from service.store.database import Store

_LAST_RESORT_S = 10.0


def register(store: Store, model: str, path: Path) -> tuple[int, Record]:
    """Register the file at `path`, whose bytes are copied to the store. Returns the new version's number and record.

    Raises CheckpointError if the file cannot be served, StoreUnavailable.
    """
    _, record = state_dict.load(model, specs()[model], path)
    storage = store.storage

    def keep() -> Path:
        artifact_files.copy(record, path.parent, storage.checkpoints(model))
        kept = storage.keep(model, path.read_bytes())
        storage.publish_checkpoint(kept, record)
        return kept

    kept = keep()
    store.migrate()
    with store.write() as connection:
        if not all(
            storage.exists(file) for file in (kept, *(kept.parent / name for name in artifact_files.names(record)))
        ):
            keep()  # `torchloop prune` has removed a file of a pruned version with the same content in this moment
        return Registry(store).add(connection, model, kept, record, job=None, now=time.time()), record


def main() -> int:
    """Run the command. Returns the exit status: 1 if it failed, 2 for a bad setting."""
    try:
        project.of(os.environ).enter()
    except ProjectError as err:
        return refuse(str(err), 2)
    parser = argparse.ArgumentParser(prog="python -m service.register", description="Make a checkpoint a version.")
    parser.add_argument("model", choices=list(specs()))
    parser.add_argument("file", type=Path, help="a .pt file, with its record beside it or a bare state_dict")
    options = parser.parse_args()
    try:
        with Interruption(_LAST_RESORT_S):
            settings = from_environment(os.environ)
            store = Store.of(settings)
            version, record = register(store, options.model, options.file)
            store.close()
    except SettingsError as err:
        return refuse(str(err), 2)
    except (CheckpointError, ServiceError) as err:
        return refuse(str(err), 1)
    except OSError as err:
        return refuse(unwritable(err), 1)
    except KeyboardInterrupt:
        return refuse("interrupted before the version was confirmed", INTERRUPTED)
    for note in record.notes:
        sys.stdout.write(f"{note}\n")
    sys.stdout.write(f"registered version {version} of {options.model}: POST /models/{options.model}/promote it\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
