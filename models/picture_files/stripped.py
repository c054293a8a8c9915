"""The result of reading a picture file's structure, and the errors of damaged files."""

from collections.abc import Callable
from typing import NamedTuple

from models.errors import InvalidInput

MOST_MISSING = 0.2  # of the pixels, at the end of a truncated file: they are filled in, and it is read all the same


class Stripped(NamedTuple):
    """A picture file without metadata.

    `files` holds one file if the input is whole. If the input ends too early it holds several that differ only in the
    padding after its end: pixels that differ between two of them are missing. It is empty if no pixel can be decoded.
    """

    files: tuple[bytes, ...]
    orientation: int = 1  # EXIF, 1..8; 1: as stored
    unchecked: Callable[[], object] | None = None  # raises InvalidInput if pixels are missing; None: none are

    @property
    def whole(self) -> bool:
        """Whether the input has its end."""
        return len(self.files) == 1


def damaged_picture(detail: str = "the picture is truncated or damaged") -> InvalidInput:
    """Build the error for a picture whose pixels cannot be decoded."""
    return InvalidInput("Damaged picture", f"{detail}; send the whole file, or save the picture again as PNG")


def ends_too_early() -> InvalidInput:
    """Build the error for a truncated picture that lacks too many of its pixels."""
    return damaged_picture("the picture ends too early: part of its pixels are missing")
