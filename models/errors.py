"""Errors of models and checkpoints, shared by serving and training."""

from typing import Self


class InvalidInput(ValueError):
    """A body, or one sample of it, that the model cannot take.

    `title` names the kind of fault, `detail` says what to change. Both are shown to the caller.
    """

    def __init__(self, title: str, detail: str) -> None:
        super().__init__(f"{title}: {detail}")
        self.title = title
        self.detail = detail

    def alone(self) -> Self:
        """The same, without the frames it came through and the errors it was made of.

        They hold the body, and what keeps the error: a circle that would stay in memory until the garbage collector
        comes by.
        """
        self.__traceback__ = self.__cause__ = self.__context__ = None
        return self


class MalformedInput(InvalidInput):
    """A body that cannot even be read: no JSON, no .npy, no picture of a known format's framing."""


class TooManySamples(InvalidInput):
    """A body of more samples than one request may hold."""

    def __init__(self, count: int, limit: int) -> None:
        super().__init__("Too many samples", f"the body holds {count} samples; send at most {limit} in one request")


class CheckpointError(Exception):
    """A checkpoint that is missing, damaged, or not of this network. The message names no folder."""
