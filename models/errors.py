"""Errors of models and checkpoints, shared by serving and training."""

import re
from typing import Self

_SHOWN = 120  # characters of a text from outside in an error message
_MOST = 300  # characters of another library's error message that are kept
_FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s'\"/:,]+/)*(?=[\w.~-])")  # of an absolute path


class InvalidInput(ValueError):
    """Error: the model does not accept this body, or one sample of it.

    `title` names the kind of error, `detail` says how to fix it. Both are shown to the client. `place` is the name of
    the input at fault, if the error is about one.
    """

    def __init__(self, title: str, detail: str, place: str | None = None) -> None:
        super().__init__(f"{title}: {detail}")
        self.title = title
        self.detail = detail
        self.place = place

    def alone(self) -> Self:
        """Drop traceback and context, and return self.

        They reference the request body and form a cycle that only the garbage collector would free.
        """
        self.__traceback__ = self.__cause__ = self.__context__ = None
        return self


class MalformedInput(InvalidInput):
    """Error: the body cannot be parsed as JSON, as .npy or as a known picture format."""


class TooManySamples(InvalidInput):
    """Error: the body has more samples than one request may have."""

    def __init__(self, count: int, limit: int) -> None:
        super().__init__("Too many samples", f"the body has {count} samples; send at most {limit} in one request")


class CheckpointError(Exception):
    """Error: a checkpoint is missing, damaged, or does not fit the network. The message names no folder."""


class BrokenObject(CheckpointError):
    """Error: the object store has no such object, or a damaged one. The message names its key."""


class UnwritableCopy(CheckpointError):
    """Error: a copy of an object cannot be written into the store folder. The message names no folder."""


class ObjectsUnavailable(Exception):
    """Error: the object store cannot be reached or used for now. The message names no address.

    `why` is for logs: the cause if it is known, without addresses and credentials.
    """

    def __init__(self, message: str, why: str = "") -> None:
        super().__init__(message)
        self.why = why


def shown(text: str) -> str:
    """Prepare a text from outside for an error message: escape lone surrogates and control characters, and cut it."""
    start = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[:_SHOWN])
    return start if len(text) <= _SHOWN else f"{start}..."


def said(err: BaseException) -> str:
    """Return the message of an error of a model's code, in valid Unicode; empty if its __str__ fails."""
    try:
        return str(err).encode("utf-8", "backslashreplace").decode()
    except Exception:  # noqa: BLE001 - a model author's code
        return ""


def in_one_line(err: BaseException) -> str:
    """Return the first line of an error of another library or of a model's code, cut, and without folders' names."""
    lines = (line.strip() for line in said(err).splitlines())
    return without_folders(next((line for line in lines if line), type(err).__name__))[:_MOST]


def without_folders(text: str) -> str:
    """Remove the folders of absolute paths: their names are not for clients."""
    return _FOLDERS.sub("", text)
