"""URL of the database, from TORCHLOOP_DATABASE_URL."""

from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from models.checkpoints.storage import Storage
from service.settings import PREFIX, SettingsError

_DRIVERS = {"postgresql+psycopg", "sqlite"}


def locate(url: str, folder: Path) -> URL:
    """Return the parsed URL; without one, that of the SQLite database in the store folder.

    Raises SettingsError if the database is not supported.
    """
    if not url:
        return URL.create("sqlite", database=str(Storage(folder.resolve()).database))  # the path may contain ? and %
    try:
        parsed = make_url(url)
    except (SQLAlchemyError, ValueError) as err:  # ValueError: the port is not a number
        raise _refused("write it as postgresql+psycopg://USER:PASSWORD@HOST/NAME") from err
    if parsed.drivername not in _DRIVERS:
        reason = f"{parsed.drivername} is not supported; use postgresql+psycopg://... or leave it out for SQLite"
        raise _refused(reason)
    if parsed.drivername == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise _refused("it names no file, and processes share the database: write sqlite:////path/to/file.db")
    return _with_home(parsed)


def _with_home(url: URL) -> URL:
    """Expand the ~ of sqlite:///~/torchloop.db."""
    if url.drivername != "sqlite" or not (url.database or "").startswith("~"):
        return url
    try:
        return url.set(database=str(Path(str(url.database)).expanduser()))
    except RuntimeError as err:
        raise _refused("the home folder of this user is unknown: write the path without ~") from err


def _refused(reason: str) -> SettingsError:
    return SettingsError(f"{PREFIX}DATABASE_URL: {reason}")
