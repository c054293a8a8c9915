"""Output of an attempt for the events of its job: bounded, and without the paths of the machine."""

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import models

MAX_CHARS = 65_536  # of one attempt; the worker's log has the rest
_REST = "... the rest is in the log of the worker"


def folders(store: Path, data: Path) -> dict[str, str]:
    """Return the folders of this machine that output may name, and the names that stand for them."""
    named = {Path(models.__file__).parents[1]: ".", Path(sys.prefix): "PYTHON", data: "DATA", store: "STORE"}
    with suppress(RuntimeError):  # no home folder
        named.setdefault(Path.home(), "~")
    places = {str(form): name for folder, name in named.items() for form in (folder.absolute(), folder.resolve())}
    return {place: name for place, name in places.items() if len(place) > 1}


class Output:
    """Texts that a subprocess has written, until they are stored."""

    def __init__(self, hidden: Mapping[str, str]) -> None:
        """`hidden`: folders, and the names that replace them."""
        self._hidden = sorted(hidden.items(), key=lambda pair: len(pair[0]), reverse=True)
        self._left = MAX_CHARS
        self._texts: list[str] = []

    def add(self, text: str) -> None:
        """Keep a text, or its beginning if it goes beyond the limit."""
        for place, name in self._hidden:
            text = re.sub(rf"{re.escape(place)}(?![\w.-])", name, text)
        text = text.replace("\0", "")
        if self._left <= 0 or not text:
            return
        self._texts.append(text[: self._left])
        self._left -= len(text)
        if self._left <= 0:
            self._texts.append(_REST)

    def waiting(self) -> Sequence[str]:
        """Return the texts that are not stored yet."""
        return tuple(self._texts)

    def stored(self) -> None:
        """Forget the texts that wait: they are in the database."""
        self._texts.clear()
