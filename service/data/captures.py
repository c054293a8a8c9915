"""The table of captures: written in batches, listed, read one by one, and offered as examples of a dataset."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from sqlalchemy import Connection, case, func, literal, null, select, tuple_

from models.errors import shown
from service.data import capture_settings, feedback
from service.data.capture_rows import Row, entry_of
from service.data.capture_settings import CaptureSettings, Kept
from service.data.erasures import Erasures
from service.data.feedback import Kind, Truth
from service.data.said import compared
from service.data.turns import yield_to_requests
from service.errors import Invalid, NotFound
from service.store.database import Store
from service.store.dialects import Insertion
from service.store.tables import capture_uses, captures
from service.store.tables import feedback as feedback_table

Order = Literal["newest", "random", "uncertain"]
_UNLABELLED = ("new", "corrected")
_NOT_DRAWN = (*_UNLABELLED, "picked")
_CHUNK = 20  # rows that are handed to the driver at once: 0.2 ms
_PAGE = 200
# A page and the examples need no answer, and of the original file only whether it is kept: one may have megabytes.
_SPARED = {
    "answer": null(),
    "original": case((captures.c.original.is_not(None), literal(b"")), else_=null()),
}
_WITHOUT_BLOBS = [_SPARED[one.name].label(one.name) if one.name in _SPARED else one for one in captures.c]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """One captured sample. `answer` and `content` are None once it is erased or pruned. Times in seconds since 1970.

    In a page `answer` is None, and `original` is empty if the file is kept.
    """

    number: int
    model: str
    id: str
    position: int
    version: int
    at: float
    key: str | None
    media_type: str
    code: str | None
    backend: str | None
    form: str | None
    rate: float
    draw: int
    state: Literal["new", "corrected", "picked", "labelled", "gone"]
    probability: float | None
    said: Mapping[str, Mapping[str, Any]] | None
    answer: bytes | None
    content: bytes | None
    original: bytes | None
    erased_at: float | None
    pruned_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A captured sample with its best truth, as an example of a dataset.

    entry     the sample as the spec checked it: an array, or values by name, None for those left to their defaults
    feedback  number of the entry with the truth: a watermark
    rate      share of the requests that was captured then: 1 / rate such requests stand behind the sample
    """

    capture: int
    id: str
    position: int
    version: int
    at: float
    key: str | None
    entry: Any
    truth: Truth
    was_right: bool | None
    feedback: int
    rate: float


class Captures:
    """The table, and the settings of each model. Raises StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._insertion: Insertion | None = None

    def settings(self) -> Mapping[str, Kept]:
        """Return the settings of each model that has any."""
        with self._store.read() as connection:
            return capture_settings.read(connection)

    def settings_of(self, model: str) -> Kept:
        """Return the settings of a model."""
        with self._store.read() as connection:
            return capture_settings.read_one(connection, model)

    def set(self, model: str, settings: CaptureSettings, *, by: str, now: float) -> Kept:
        """Replace the settings of a model."""
        with self._store.write() as connection:
            capture_settings.write(connection, model, settings, by=by, now=now)
            return capture_settings.read_one(connection, model)

    def insert(self, rows: Sequence[Row], now: float, *, repeat: bool = True) -> int:
        """Add rows in one transaction, but those that were erased meanwhile. Returns how many were added.

        With `repeat`, rows that are there already are left out: for a transaction whose outcome was not learnt.
        """
        added = 0
        with self._store.write(durable=False) as connection:
            for model in dict.fromkeys(row["model"] for row in rows):
                erasures = Erasures.of(connection, model)
                yield_to_requests()
                mine = [row for row in rows if row["model"] == model and not erasures.has(row["id"], row["key"])]
                if mine := _new(connection, mine) if repeat else mine:
                    self._insert(connection, mine)
                    yield_to_requests()
                    capture_settings.count(connection, model, len(mine), sum(row["bytes"] for row in mine))
                    ids = list(dict.fromkeys(row["id"] for row in mine))
                    keys = list({row["key"] for row in mine} - {None})
                    yield_to_requests()
                    feedback.match(connection, model, ids, keys, now)
                    added += len(mine)
        return added

    def _insert(self, connection: Connection, rows: Sequence[Row]) -> None:
        if self._insertion is None:
            self._insertion = Insertion(connection.dialect, captures, list(rows[0]), _CHUNK)
        for at in range(0, len(rows), _CHUNK):
            yield_to_requests()
            self._insertion.execute(connection, rows[at : at + _CHUNK])

    def of_prediction(self, prediction: str) -> Sequence[Capture]:
        """Return the captured samples of a prediction by their positions, those without content included."""
        query = select(captures).where(captures.c.id == prediction).order_by(captures.c.position)
        with self._store.read() as connection:
            return [_capture(row) for row in connection.execute(query).mappings()]

    def one(self, model: str, prediction: str, position: int) -> Capture:
        """Return one captured sample that has its content. Raises NotFound."""
        query = select(captures).where(
            captures.c.model == model,
            captures.c.id == prediction,
            captures.c.position == position,
            captures.c.content.is_not(None),
        )
        with self._store.read() as connection:
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            raise NotFound(f"{model} has no captured sample {position} of prediction {shown(prediction)!r}")
        return _capture(row)

    def page(
        self, model: str, *, unlabelled: bool, order: Order, version: int | None, limit: int, after: str | None
    ) -> tuple[Sequence[Capture], str | None]:
        """Return captured samples that have their content, and the cursor of the next page; None on the last page.

        unlabelled  without an audit and an outcome. Random ones are a sample of all answers: also those that were
                    corrected, or audited as uncertain ones, but none that retention has kept longer than others
        order       newest first; random: by `draw`, always the same; uncertain: the least probability first
        Raises Invalid for the cursor of another order.
        """
        draws = unlabelled and order == "random"
        states = _NOT_DRAWN if draws else _UNLABELLED if unlabelled else feedback.STATES
        place = {
            "newest": (-captures.c.number,),
            "random": (captures.c.draw, captures.c.number),
            "uncertain": (func.coalesce(captures.c.probability, 2.0), captures.c.number),
        }[order]
        numbers = select(captures.c.number, *place).where(captures.c.model == model, captures.c.state.in_(states))
        if version is not None:
            numbers = numbers.where(captures.c.version == version)
        if after is not None:
            numbers = numbers.where(tuple_(*place) > _place(after, len(place)))
        with self._store.read() as connection:
            if draws:
                whole_from = capture_settings.read_one(connection, model).whole_from
                numbers = numbers.where(captures.c.number >= whole_from)
            found = connection.execute(numbers.order_by(*place).limit(limit + 1)).all()
            wanted = [row[0] for row in found[:limit]]
            query = select(*_WITHOUT_BLOBS).where(captures.c.number.in_(wanted))
            rows = {row["number"]: _capture(row) for row in connection.execute(query).mappings()}
        cursor = "_".join(map(repr, found[limit - 1][1:])) if len(found) > limit else None
        return [rows[number] for number in wanted if number in rows], cursor


def use(connection: Connection, job: str, numbers: Sequence[int]) -> None:
    """Note that a job makes a dataset version of captures: an erasure then names it."""
    if numbers:
        connection.execute(capture_uses.insert(), [{"capture": number, "job": job} for number in numbers])


def examples(
    connection: Connection, model: str, *, since: float = 0.0, after: int = 0, kinds: Sequence[Kind] = ("correction",)
) -> Iterator[Labelled]:
    """Yield the captured samples with current feedback, each with its best truth, in the order of that feedback.

    since  only if there is feedback from that time on; after: with a greater number
    kinds  that make a sample an example; its truth is the best of any kind
    """
    last = after
    while True:
        chosen = select(feedback_table.c.number, feedback_table.c.capture).where(
            feedback_table.c.model == model,
            feedback_table.c.number > last,
            feedback_table.c.at >= since,
            feedback_table.c.replaced_at.is_(None),
            feedback_table.c.capture.is_not(None),
            feedback_table.c.kind.in_(kinds),
        )
        found = connection.execute(chosen.order_by(feedback_table.c.number).limit(_PAGE)).all()
        if not found:
            return
        yield from _examples(connection, model, {row.capture: row.number for row in found}, kinds)
        last = found[-1].number


def _examples(
    connection: Connection, model: str, numbers: Mapping[int, int], kinds: Sequence[Kind]
) -> Iterator[Labelled]:
    """Yield the captures of some entries; one that has several of these kinds comes with the last one only."""
    query = select(*_WITHOUT_BLOBS).where(captures.c.number.in_(list(numbers)), captures.c.content.is_not(None))
    rows = {row["number"]: row for row in connection.execute(query).mappings()}
    best = feedback.truths(connection, model, list(dict.fromkeys(row["id"] for row in rows.values())))
    later = select(feedback_table.c.capture, func.max(feedback_table.c.number)).where(
        feedback_table.c.capture.in_(list(numbers)),
        feedback_table.c.replaced_at.is_(None),
        feedback_table.c.kind.in_(kinds),
    )
    last = {row[0]: row[1] for row in connection.execute(later.group_by(feedback_table.c.capture))}
    for capture, number in numbers.items():
        if capture in rows and last.get(capture) == number:
            yield _labelled(rows[capture], best[rows[capture]["id"], rows[capture]["position"]], number)


def _labelled(row: Mapping[Any, Any], truth: Truth, number: int) -> Labelled:
    outcome = compared(row["said"] or {}, truth.value)
    own = {name: row[name] for name in ("id", "position", "version", "at", "key", "rate")}
    return Labelled(
        capture=row["number"],
        entry=entry_of(row["content"]),
        truth=truth,
        was_right=outcome.was_right,
        feedback=number,
        **own,
    )


def _new(connection: Connection, rows: Sequence[Row]) -> list[Row]:
    """Return the rows that are not there yet."""
    ids = list(dict.fromkeys(row["id"] for row in rows))
    query = select(captures.c.id, captures.c.position).where(captures.c.id.in_(ids))
    there = {(row.id, row.position) for row in connection.execute(query)} if ids else set()
    return [row for row in rows if (row["id"], row["position"]) not in there]


def _place(cursor: str, columns: int) -> Any:
    """Return the place in a cursor, whose form the caller has checked. Raises Invalid for that of another order."""
    words = cursor.split("_")
    if len(words) != columns:
        raise Invalid("cursor: send the cursor of the page before, with the same order")
    return tuple_(*(int(word) if word.lstrip("-").isdigit() else float(word) for word in words))


def _capture(row: Mapping[Any, Any]) -> Capture:
    return Capture(**{field.name: row[field.name] for field in fields(Capture)})
