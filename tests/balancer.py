"""HAProxy in tests: they are skipped without it."""

import pytest

from benchmarks import balancer
from benchmarks.balancer import NoHAProxy


def binary() -> str:
    """The program haproxy; without one the test is skipped."""
    try:
        return balancer.binary()
    except NoHAProxy as err:
        pytest.skip(f"HAPROXY IS NOT TESTED: {err}")
