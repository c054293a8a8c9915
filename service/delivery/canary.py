"""Sticky assignment: which keys a trial chooses, for a share of the keys.

u = first 8 bytes (big endian) of BLAKE2b(trial id + key) / 2**64; a key is chosen if u < share. There is no state: all
processes and machines choose the same keys, and a growing share keeps its members.
"""

import math
from collections.abc import Mapping
from hashlib import blake2b

_BYTES = 8


class Sticky:
    """The keys of one trial. The key of a request is a header's value, else the stem of its id, which is unique."""

    __slots__ = ("_header", "_trial")

    def __init__(self, trial: str, key_header: str | None) -> None:
        self._trial = trial.encode()
        self._header = None if key_header is None else key_header.lower().encode("latin-1")

    def place(self, headers: Mapping[bytes, bytes], stem: str) -> bytes:
        """Return the place of a request's key, 8 bytes. `headers` are by lower-case name."""
        key = None if self._header is None else headers.get(self._header)
        return blake2b(self._trial + (key or stem.encode())).digest()[:_BYTES]


def bound_of(share: float) -> bytes:
    """Return the smallest place that a share (0 to below 1) does not choose: places below it are chosen."""
    return math.ceil(share * 2**64).to_bytes(_BYTES, "big")


def key_of(place: bytes) -> int:
    """Return 63 bits of a place, as the table of keys has them."""
    return int.from_bytes(place, "big") >> 1
