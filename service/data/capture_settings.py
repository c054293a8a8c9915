"""Which answers of a model are captured, and how much of them is kept."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from service.store.feed import append
from service.store.tables import capture_settings

MAX_EXAMPLES = 10_000
MAX_BYTES = 256 * 2**20
DAYS = 30.0
_COUNT = (
    update(capture_settings)
    .where(capture_settings.c.model == bindparam("of"))
    .values(
        examples=capture_settings.c.examples + bindparam("more"), bytes=capture_settings.c.bytes + bindparam("size")
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureSettings:
    """Settings of a model.

    rate          share of the requests whose samples are captured; 0: none
    max_examples  captures that are kept, and max_bytes, their size in all: above, the oldest go, unlabelled ones first
    days          after which a capture goes, labelled or not
    originals     also keep picture files as they came
    """

    rate: float = 0.0
    max_examples: int = MAX_EXAMPLES
    max_bytes: int = MAX_BYTES
    days: float = DAYS
    originals: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Settings of a model, and what its captures hold now.

    whole_from  number of the capture from which on all are kept. Of those before, retention has kept some rather than
                others: they are no sample of all answers
    """

    settings: CaptureSettings
    examples: int = 0
    bytes: int = 0
    whole_from: int = 0


def read(connection: Connection) -> Mapping[str, Kept]:
    """Return the settings of each model that has any."""
    return {row["model"]: _kept(row) for row in connection.execute(select(capture_settings)).mappings()}


def read_one(connection: Connection, model: str) -> Kept:
    """Return the settings of a model; without a row nothing is captured."""
    query = select(capture_settings).where(capture_settings.c.model == model)
    row = connection.execute(query).mappings().one_or_none()
    return Kept(settings=CaptureSettings()) if row is None else _kept(row)


def write(connection: Connection, model: str, settings: CaptureSettings, *, by: str, now: float) -> None:
    """Replace the settings of a model, and add an entry to the feed if they are others."""
    if settings != read_one(connection, model).settings:
        append(connection, "capture.changed", model, now, {"by": by, **asdict(settings)})
    values = {**asdict(settings), "changed_at": now, "changed_by": by}
    changed = update(capture_settings).where(capture_settings.c.model == model).values(**values)
    if connection.execute(changed).rowcount == 0:
        connection.execute(capture_settings.insert().values(model=model, **values))


def count(connection: Connection, model: str, examples: int, size: int) -> None:
    """Add to the recorded size of a model's captures; negative numbers for removed ones."""
    connection.execute(_COUNT, {"of": model, "more": examples, "size": size})


def note_removed(connection: Connection, model: str, last: int) -> None:
    """Note that retention has removed captures up to that number, and kept others before it."""
    table = capture_settings
    earlier = table.c.model == model, table.c.whole_from <= last
    connection.execute(update(table).where(*earlier).values(whole_from=last + 1))


def _kept(row: Mapping[Any, Any]) -> Kept:
    settings = CaptureSettings(**{field.name: row[field.name] for field in fields(CaptureSettings)})
    return Kept(settings=settings, examples=row["examples"], bytes=row["bytes"], whole_from=row["whole_from"])
