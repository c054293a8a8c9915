"""Sticky assignment of keys."""

from hashlib import blake2b

import pytest

from service.delivery.canary import Sticky, bound_of, key_of

KEYS = [f"user-{number}".encode() for number in range(4000)]


def places(trial: str = "t1") -> list[bytes]:
    sticky = Sticky(trial, "X-User")
    return [sticky.place({b"x-user": key}, "stem") for key in KEYS]


def test_a_place_is_the_first_eight_bytes_of_the_digest_of_trial_and_key() -> None:
    expected = blake2b(b"t1user-0").digest()[:8]
    assert places()[0] == expected


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_a_share_of_the_keys_is_chosen(share: float) -> None:
    chosen = sum(place < bound_of(share) for place in places())
    assert chosen / len(KEYS) == pytest.approx(share, abs=3 * (share * (1 - share) / len(KEYS)) ** 0.5)


def test_a_growing_share_keeps_its_members() -> None:
    before: set[int] = set()
    for share in (0.0, 0.01, 0.1, 0.25, 0.5):
        chosen = {row for row, place in enumerate(places()) if place < bound_of(share)}
        assert before <= chosen
        before = chosen


def test_trials_choose_different_keys() -> None:
    one, other = ({row for row, place in enumerate(places(trial)) if place < bound_of(0.5)} for trial in ("a", "b"))
    assert 0.4 < len(one & other) / len(one) < 0.6


def test_a_request_without_the_header_is_a_key_of_its_own() -> None:
    sticky, keyless = Sticky("t1", "X-User"), Sticky("t1", None)
    assert sticky.place({}, "a") == sticky.place({b"x-user": b""}, "a") == keyless.place({b"x-user": b"me"}, "a")
    assert sticky.place({}, "a") != sticky.place({}, "b")
    assert sticky.place({b"x-user": b"me"}, "a") == sticky.place({b"x-user": b"me"}, "b")


def test_a_key_has_63_bits_of_its_place() -> None:
    assert key_of(b"\xff" * 8) == 2**63 - 1
    assert key_of(b"\0" * 7 + b"\2") == 1


def test_bounds_are_exact_at_both_ends() -> None:
    assert bound_of(0.0) == b"\0" * 8
    assert bound_of(0.5) == b"\x80" + b"\0" * 7


def test_a_share_below_every_place_is_rounded_up() -> None:
    assert bound_of(2.0**-65) == b"\0" * 7 + b"\1"
