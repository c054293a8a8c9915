"""Files that many tests need and that take long to make: made once a run, then copied."""

import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from models.checkpoints.storage import Storage
from service.store.database import Store

_MADE = TemporaryDirectory()


@cache
def _migrated() -> Path:
    """Return an empty SQLite database with the tables of today, as Store.migrate makes it."""
    store = Store(Path(_MADE.name))
    store.migrate()
    store.close()
    return Storage(store.folder).database


def migrated(folder: Path) -> Path:
    """Copy an empty, migrated SQLite database to a store folder, unless it has one. Returns the folder."""
    database = Storage(folder).database
    if not database.exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_migrated(), database)
    return folder
