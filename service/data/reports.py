"""Pages of the file of refused rows that an ingest has written: a JSON object a line."""

from pathlib import Path
from typing import Any

import orjson

from service.errors import Invalid, NotFound


def page_of(path: Path, begin: int, limit: int) -> tuple[list[dict[str, Any]], int | None]:
    """Return at most `limit` refused rows from byte `begin`, and where the next page begins; None on the last page.

    Raises Invalid if `begin` is not where a page begins, NotFound if the file was removed.
    """
    try:
        with path.open("rb") as file:
            is_inside = begin <= path.stat().st_size  # a position beyond the limit of the file system is an OSError
            if is_inside:
                file.seek(max(0, begin - 1))
            if not is_inside or (begin and file.read(1) != b"\n"):
                raise Invalid("cursor: send the cursor of the page before, or none for the first page")
            rows = [orjson.loads(line) for line, _ in zip(file, range(limit), strict=False)]
            file.seek(begin)
            following = begin + sum(len(line) for line, _ in zip(file, range(limit), strict=False))
            return rows, following if following < path.stat().st_size else None
    except FileNotFoundError as err:
        raise NotFound("the report of this dataset version is missing in the store") from err
