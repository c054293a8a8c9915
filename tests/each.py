"""Many small cases in one test: pytest takes milliseconds for each test."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import pytest

Case = TypeVar("Case")


def each_holds(check: Callable[[Case], None], cases: Iterable[Case]) -> None:
    """Run the check on every case; then fail with the name and the message of each one that failed."""
    count, faults = 0, []
    for case in cases:
        count += 1
        try:
            check(case)
        except (AssertionError, pytest.fail.Exception) as err:
            faults.append(f"{case}: {err}")
        except Exception as err:
            err.add_note(f"in the case {case}")
            raise
    assert count, "there are no cases"
    if faults:
        pytest.fail(f"{len(faults)} of {count} cases fail\n\n" + "\n\n".join(faults), pytrace=False)
