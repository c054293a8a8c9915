"""The address at which other machines reach a service."""

import re
import socket

import pytest

from service.web.server import listen, reachable


@pytest.mark.parametrize(
    ("host", "given", "expected"),
    [
        ("127.0.0.1", "", "127.0.0.1:PORT"),
        ("127.0.0.1", "web-1.internal", "web-1.internal:PORT"),
        ("127.0.0.1", "web-1.internal:80", "web-1.internal:80"),
        ("127.0.0.1", "[2001:db8::5]", "[2001:db8::5]:PORT"),
        ("127.0.0.1", "[2001:db8::5]:80", "[2001:db8::5]:80"),
        ("::1", "", "[::1]:PORT"),
    ],
)
def test_it_is_the_given_one_or_where_the_service_listens(host: str, given: str, expected: str) -> None:
    try:
        bound = listen(host, 0, shared=False)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with bound:
        assert reachable(bound, given) == expected.replace("PORT", str(bound.getsockname()[1]))


def test_a_service_that_listens_on_all_addresses_names_one_of_the_machine() -> None:
    with listen("0.0.0.0", 0, shared=False) as bound:
        host, _, port = reachable(bound).rpartition(":")
        assert int(port) == bound.getsockname()[1]
    assert host not in {"", "0.0.0.0"}
    assert host == socket.gethostname() or re.fullmatch(r"\d+\.\d+\.\d+\.\d+", host)
