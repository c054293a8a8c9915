"""Feedback: truths about answers, matched with the captures that they are about.

Kinds: a correction is reported by a caller unasked, mostly about wrong answers; an audit is a label given to a
sample that was drawn at random; an outcome is what turned out, for all answers. A later entry of the same kind about
the same sample replaces the earlier one, which stays as history.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, bindparam, func, or_, select, update

from models.errors import shown
from service.data import capture_settings
from service.data.said import compared
from service.data.sampled import is_drawn
from service.errors import Conflict, Invalid
from service.store.database import Store
from service.store.tables import captures, feedback, versions
from service.telemetry.ids import begun_at, stem_of, version_of

Kind = Literal["correction", "audit", "outcome"]
Drawn = Literal["random", "uncertain"]
Matched = Literal["captured", "version only", "not yet"]
STATES = ("new", "corrected", "picked", "labelled")  # of captures: each feedback takes them further, none back
_BEST_FIRST: tuple[Kind, ...] = ("audit", "outcome", "correction")
_AT_ONCE = 100  # entries in one transaction
_ON_ITS_WAY_S = 600.0  # a capture may be written that long after its request, while the store is away
_AHEAD_S = 300.0  # that the clock of another machine may be
_UNMATCHED = select(feedback.c.number).where(feedback.c.capture.is_(None), feedback.c.model == bindparam("of")).limit(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What somebody says about one answer: by the id of the prediction, or by its key. `truth` is checked already.

    `drawn`: how the sample of an audit was chosen. `replace`: another truth of the same kind, if there is one.
    """

    id: str | None
    key: str | None
    position: int
    truth: Any
    kind: Kind
    drawn: Drawn
    by: str
    replace: bool = True


class AlreadyTold(Conflict):
    """The sample has another truth of the same kind, which is not to be replaced: `current`, its row."""

    title = "Already told"

    def __init__(self, current: Mapping[str, Any]) -> None:
        told = shown(json.dumps(current["truth"], ensure_ascii=False))
        text = f'its {current["kind"]} says {told}: send "replace": true to replace it'
        super().__init__(text)
        self.current = current


class Truth(NamedTuple):
    """The best truth of a sample: that of an audit, or else of an outcome, or else of a correction."""

    value: Any
    kind: Kind


class Feedback:
    """The table of feedback."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, model: str, entries: Sequence[Entry], now: float) -> list[Matched | Invalid | AlreadyTold]:
        """Keep entries, each for itself: returns what each is matched with, or why it is refused.

        A repeat of the current entry about a sample adds nothing. Raises StoreUnavailable.
        """
        found: list[Matched | Invalid | AlreadyTold] = []
        for at in range(0, len(entries), _AT_ONCE):
            some = entries[at : at + _AT_ONCE]
            with self._store.write() as connection:
                known = _Known.of(connection, model, some)
                for entry in some:
                    try:
                        found.append(_added(connection, model, known, entry, now))
                    except (Invalid, AlreadyTold) as err:
                        found.append(err)
        return found

    def history(self, ids: Sequence[str]) -> Mapping[tuple[str, int], list[Mapping[str, Any]]]:
        """Return all entries about the samples of predictions, the oldest first, by id and position."""
        query = select(feedback).where(feedback.c.id.in_(ids)).order_by(feedback.c.number)
        found: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
        with self._store.read() as connection:
            for row in connection.execute(query).mappings():
                found.setdefault((row["id"], row["position"]), []).append(dict(row))
        return found


def truths(
    connection: Connection, model: str, ids: Sequence[str], kinds: Sequence[Kind] = _BEST_FIRST
) -> Mapping[tuple[str, int], Truth]:
    """Return the best truth of the samples of predictions, by id and position; captured or not."""
    columns = feedback.c.id, feedback.c.position, feedback.c.truth, feedback.c.kind
    current = feedback.c.replaced_at.is_(None), feedback.c.truth.is_not(None), feedback.c.kind.in_(kinds)
    found: dict[tuple[str, int], Truth] = {}
    for at in range(0, len(ids), 500):
        query = select(*columns).where(feedback.c.id.in_(ids[at : at + 500]), feedback.c.model == model, *current)
        for row in connection.execute(query):
            place, best = (row.id, row.position), found.get((row.id, row.position))
            if best is None or _BEST_FIRST.index(row.kind) < _BEST_FIRST.index(best.kind):
                found[place] = Truth(row.truth, row.kind)
    return found


def match(connection: Connection, model: str, ids: Sequence[str], keys: Sequence[str], now: float) -> None:
    """Match entries that came before their captures, once these are written: at most some hundred ids and keys."""
    if connection.execute(_UNMATCHED, {"of": model}).first() is None:
        return
    about = or_(feedback.c.id.in_(ids), and_(feedback.c.id.is_(None), feedback.c.key.in_(keys)))
    query = select(feedback).where(feedback.c.capture.is_(None), feedback.c.model == model, about)
    waiting = connection.execute(query.order_by(feedback.c.number)).all()
    if not waiting:
        return
    known = _Known.of(connection, model, waiting)
    for row in waiting:
        capture = known.capture(row)
        if capture is not None:
            connection.execute(
                update(feedback).where(feedback.c.number == row.number).values(**_matched(capture, row.truth))
            )
            later = select(func.max(feedback.c.number)).where(*_same(capture.id, row.position, row.kind))
            older = feedback.c.number < later.scalar_subquery()
            connection.execute(
                update(feedback).where(*_same(capture.id, row.position, row.kind), older).values(replaced_at=now)
            )
            _mark(connection, capture.number, row.kind, row.drawn)


@dataclass(frozen=True, slots=True)
class _Known:
    """Captures that entries are about, and what else decides about entries."""

    by_id: Mapping[tuple[str, int], Any]  # rows
    by_key: Mapping[tuple[str, int], Any]
    ids: set[str]  # of captured predictions of the model
    others: set[str]  # and of other models
    versions: set[int]
    rate: float
    whole_from: int  # number of a capture: see capture_settings.Kept

    @classmethod
    def of(cls, connection: Connection, model: str, entries: Sequence[Any]) -> "_Known":
        """Read the context of entries, or of rows of entries."""
        table = captures.c
        columns = table.number, table.model, table.id, table.key, table.position, table.version, table.said
        query = select(*columns, table.erased_at).order_by(table.number)
        ids = [entry.id for entry in entries if entry.id is not None]
        keys = [entry.key for entry in entries if entry.id is None]
        found = connection.execute(query.where(table.id.in_(ids))).all() if ids else []
        keyed = connection.execute(query.where(table.model == model, table.key.in_(keys))).all() if keys else []
        kept = capture_settings.read_one(connection, model)
        return cls(
            by_id={(row.id, row.position): row for row in found if row.model == model},
            by_key={(row.key, row.position): row for row in keyed},  # the last one with a key
            ids={row.id for row in found if row.model == model},
            others={row.id for row in found if row.model != model},
            versions=set(connection.scalars(select(versions.c.version).where(versions.c.model == model))),
            rate=kept.settings.rate,
            whole_from=kept.whole_from,
        )

    def capture(self, entry: Any) -> Any:
        """Return the row of the capture that an entry, or a row of one, is about; None if there is none."""
        if entry.id is not None:
            return self.by_id.get((entry.id, entry.position))
        return self.by_key.get((entry.key, entry.position))


def _added(connection: Connection, model: str, known: _Known, entry: Entry, now: float) -> Matched:
    """Add an entry, unless it repeats the current one. Raises Invalid and AlreadyTold."""
    capture = known.capture(entry)
    if capture is not None and capture.erased_at is not None:
        raise Invalid(f"the capture of prediction {capture.id} was erased: it takes no feedback")
    if capture is None and entry.id is not None:
        _require_ours(model, known, entry.id, now)
    if capture is not None:
        told = _matched(capture, entry.truth)
        same = _same(capture.id, entry.position, entry.kind)
    else:
        told = {"id": entry.id, "version": None if entry.id is None else version_of(entry.id)}
        same = _same(entry.id, entry.position, entry.kind, model, entry.key)
    current = connection.execute(select(feedback).where(*same)).first()
    drawn = _drawn(known, entry, capture, current)
    if current is not None and not entry.replace and current.truth != entry.truth:
        raise AlreadyTold(dict(current._mapping))
    if current is None or (current.truth, current.by, current.drawn) != (entry.truth, entry.by, drawn):
        connection.execute(update(feedback).where(*same).values(replaced_at=now))
        own = {name: getattr(entry, name) for name in ("key", "position", "truth", "kind", "by")}
        connection.execute(feedback.insert().values(model=model, at=now, drawn=drawn, **own, **told))
        if capture is not None:
            _mark(connection, capture.number, entry.kind, drawn)
    if capture is not None:
        return "captured"
    return "not yet" if _may_come(known, entry, now) else "version only"


def _matched(capture: Any, truth: Any) -> dict[str, Any]:
    """Return the columns of an entry that follow from its capture."""
    outcome = compared(capture.said or {}, truth)
    return {
        "id": capture.id,
        "version": capture.version,
        "capture": capture.number,
        "was_right": outcome.was_right,
        "error": outcome.error,
    }


def _same(
    prediction: str | None, position: int, kind: str, model: str = "", key: str | None = None
) -> list[ColumnElement[bool]]:
    """Return the conditions of the current entry of a kind about a sample: by its id; if it has none, by its key."""
    if prediction is not None:
        about = [feedback.c.id == prediction]
    else:
        about = [feedback.c.id.is_(None), feedback.c.model == model, feedback.c.key == key]
    return [*about, feedback.c.position == position, feedback.c.kind == kind, feedback.c.replaced_at.is_(None)]


def _drawn(known: _Known, entry: Entry, capture: Any, current: Any) -> str:
    """Return how the sample of an entry was chosen among all answers.

    A sample that was drawn at random once stays one, if it is audited again. One that retention has kept longer than
    others, for its correction, is not a random one.
    """
    if entry.kind == "correction":
        return entry.drawn
    if current is not None and current.drawn == "random":
        return "random"
    if capture is not None and capture.number < known.whole_from:
        return "kept"
    return entry.drawn if entry.kind == "audit" else "random"


def _mark(connection: Connection, capture: int, kind: str, drawn: str) -> None:
    """Note in a capture that it has feedback."""
    state = "corrected" if kind == "correction" else "picked" if drawn == "uncertain" else "labelled"
    row = captures.c.number == capture, captures.c.state.in_(STATES[: STATES.index(state)])
    connection.execute(update(captures).where(*row).values(state=state))


def _require_ours(model: str, known: _Known, prediction: str, now: float) -> None:
    """Raise Invalid unless an id may be that of a prediction of the model."""
    if prediction in known.others:
        raise Invalid(f"prediction {prediction} is one of another model")
    if version_of(prediction) not in known.versions:
        raise Invalid(f"{model} has no version {version_of(prediction)}, which the id {prediction} names")
    if begun_at(prediction) > now + _AHEAD_S:
        raise Invalid(f"no prediction has the id {prediction}: its time is still to come")


def _may_come(known: _Known, entry: Entry, now: float) -> bool:
    """Return whether the capture of an entry may still be written: it was drawn, and is recent."""
    if entry.id is None:
        return True
    if entry.id in known.ids:  # all samples of a prediction are written at once
        return False
    drawn = is_drawn(stem_of(entry.id), known.rate)
    return drawn and begun_at(entry.id) > now - _ON_ITS_WAY_S
