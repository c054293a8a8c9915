"""Run decoding off the event loop."""

from typing import TypeVar

INLINE_BYTES = 65_536  # a larger JSON or .npy body is decoded in a thread, so that it stalls nobody


T = TypeVar("T")
