"""torchloop migrate: bring the tables of the database to the schema of this version."""

import os
import sys
from collections.abc import Sequence

from service.errors import ServiceError
from service.settings import OptionParser, SettingsError, from_environment, refuse
from service.store.database import Store, newest_revision

_DESCRIPTION = (
    "Bring the tables of the database to the schema of this version, or do nothing if they have it. The service and "
    "its workers do the same when they start; this command is for deployments that do it first, in a step of its own. "
    "Use the settings of the service."
)


def main(words: Sequence[str] | None = None, *, prog: str = "torchloop migrate") -> int:
    """Run the command. Returns the exit status: 1 if the database cannot be reached, 2 for wrong settings."""
    OptionParser(prog=prog, description=_DESCRIPTION, allow_abbrev=False).parse_args(words)
    try:
        settings = from_environment(os.environ)
        store = Store.of(settings)
    except SettingsError as err:
        return refuse(str(err), 2)
    try:
        before = store.migrate()
    except ServiceError as err:
        return refuse(err.detail, 1)
    finally:
        store.close()
    sys.stdout.write(f"{_done(before, newest_revision())}: the database has the schema of this version\n")
    return 0


def _done(before: str | None, newest: str) -> str:
    if before is None:
        return f"tables made, revision {newest}"
    return f"nothing to do, revision {newest}" if before == newest else f"migrated from revision {before} to {newest}"
