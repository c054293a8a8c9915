"""Report of an ingest: each refused row in a file, and counts by reason."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import orjson

from models.messages import RefusalReason, RefusedRow
from training.datasets.joined import Joined
from training.datasets.judge import Refused

_FEW = 1_000  # validation rows
_FIRST = 20  # rows of a reason in the summary
_DECIMAL_COMMA = re.compile(r"[-+]?(\d+|\d{1,3}(\.\d{3})+),\d+")


class ReportWriter:
    """Writes a line of JSON for each refused row, and counts them."""

    def __init__(self, path: Path, pictured: Callable[[Refused], bool]) -> None:
        """`pictured` writes the thumbnail of a row, and returns whether it has one."""
        self._file = path.open("wb")
        self._pictured = pictured
        self._counts: dict[str, int] = {}
        self._first: dict[str, list[RefusedRow]] = {}
        self.rejected = 0

    def add(self, refused: Iterable[Refused]) -> None:
        """Write rows."""
        for one in refused:
            row = RefusedRow(
                row=one.row.number,
                column=one.column,
                value=one.value,
                detail=one.error.detail,
                picture=self._pictured(one),
            )
            title = one.error.title
            line = {"title": title, **asdict(row)}
            self._file.write(_clean(line) + b"\n")
            self.rejected += 1
            self._counts[title] = self._counts.get(title, 0) + 1
            first = self._first.setdefault(title, [])
            if len(first) < _FIRST:
                first.append(row)

    def close(self) -> None:
        """Complete the file."""
        self._file.close()

    def reasons(self) -> tuple[RefusalReason, ...]:
        """Return the rows by their titles, the most frequent first."""
        titles = sorted(self._counts, key=lambda title: (-self._counts[title], title))
        return tuple(
            RefusalReason(title=title, rows=self._counts[title], first=tuple(self._first[title])) for title in titles
        )


def _clean(line: dict[str, object]) -> bytes:
    """Encode as JSON; lone surrogates of broken texts are escaped."""
    escaped = {
        name: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for name, value in line.items()
    }
    return orjson.dumps(escaped)


def warnings_of(
    examples: Mapping[str, int],
    by_label: Mapping[str, Mapping[str, int]],
    ignored: Sequence[str],
    found: Joined,
    reasons: Sequence[RefusalReason],
) -> Iterator[str]:
    """Yield warnings about a version."""
    if 0 < examples["validation"] < _FEW:
        yield (
            f"{examples['validation']:,} validation rows: with fewer than {_FEW:,}, the better of two versions is "
            "often mistaken for the worse"
        )
    for split, count in examples.items():
        if not count:
            yield f"the {split} split is empty: the version cannot be trained on yet"
            continue
        absent = [label for label, rows in by_label.items() if not rows[split]]
        if absent:
            more = f" and {len(absent) - 12} more" if len(absent) > 12 else ""
            yield f"the {split} split has no row of {', '.join(absent[:12])}{more}"
    if len([label for label, rows in by_label.items() if sum(rows.values())]) == 1:
        yield "all rows have the same label: there is nothing to learn"
    yield from _of_contents(found)
    if ignored:
        yield f"columns that are no input of the model were not used: {', '.join(ignored[:20])}"
    values = (row.value or "" for reason in reasons for row in reason.first)
    if comma := next((value for value in values if _DECIMAL_COMMA.fullmatch(value.strip())), None):
        number = comma.strip().replace(".", "").replace(",", ".")
        yield f"values such as {comma} seem to have a decimal comma: write numbers with a point, such as {number}"


def _of_contents(found: Joined) -> Iterator[str]:
    """Yield warnings about rows whose content contradicts that of earlier ones."""
    if conflicts := found.conflicts:
        yield (
            f"{len(conflicts):,} rows have the content of an earlier row and another target, first row {conflicts[0]}: "
            "the earlier one counts"
        )
    if found.overruled:
        yield (
            f"{found.overruled:,} rows name another split than that which an earlier version gave their content or "
            "group: they keep that one"
        )
    if found.contradictory:
        yield (
            f"{found.contradictory:,} rows name another split than an earlier row of the same content: the earlier one "
            "counts"
        )
