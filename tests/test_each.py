"""Cases that share a test all run, and a failure names each that failed."""

import pytest

from tests.each import each_holds


def test_every_case_runs_and_a_failure_names_each_that_failed() -> None:
    seen = []

    def check(case: int) -> None:
        seen.append(case)
        assert case % 2 == 0, f"{case} is odd"

    with pytest.raises(pytest.fail.Exception, match="2 of 4 cases fail") as failed:
        each_holds(check, [1, 2, 3, 4])
    assert seen == [1, 2, 3, 4]
    assert "1: 1 is odd" in str(failed.value)
    assert "3: 3 is odd" in str(failed.value)
    assert "2: " not in str(failed.value)


def test_a_case_that_raises_nothing_in_pytest_raises_is_named() -> None:
    def check(_: int) -> None:
        with pytest.raises(ValueError, match="odd"):
            pass

    with pytest.raises(pytest.fail.Exception, match="2 of 2 cases fail"):
        each_holds(check, [1, 2])


def test_an_unexpected_error_names_its_case() -> None:
    def check(case: int) -> None:
        raise LookupError(case)

    with pytest.raises(LookupError) as raised:
        each_holds(check, [5])
    assert raised.value.__notes__ == ["in the case 5"]


def test_no_cases_are_no_success() -> None:
    with pytest.raises(AssertionError, match="there are no cases"):
        each_holds(lambda _: None, [])
