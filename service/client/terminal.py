"""Standard output and standard error of the commands: ASCII terminals, closed pipes, full disks."""

import io
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


def run(command: Callable[[], int]) -> int:
    """Run a command, with characters escaped that the terminal does not have. Returns its exit status.

    If the reader of the output has closed the pipe, as `head` does, the command ends quietly with status 1. Other
    failures to write are one line.
    """
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return command()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
    except OSError as err:
        _discard_output()
        with suppress(OSError):
            sys.stderr.write(f"torchloop: the output cannot be written ({err.strerror})\n")
    return 1


def as_json(value: Any) -> str:
    """Format a value as JSON, in ASCII if standard output has no other characters."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, indent=2)
    return text


def printable(text: str) -> str:
    """Return lines of a text with control characters escaped, so that they do not steer the terminal."""
    lines = (line.expandtabs() for line in text.splitlines())
    return "\n".join(line if line.isprintable() else line.encode("unicode_escape").decode("ascii") for line in lines)


def _open_closed_streams() -> None:
    """Open /dev/null for each standard stream that the caller has closed (`>&-`): Python has None for it."""
    null = Path(os.devnull)
    sys.stdin = sys.stdin or null.open(encoding="utf-8")
    sys.stdout = sys.stdout or null.open("w", encoding="utf-8")
    sys.stderr = sys.stderr or null.open("w", encoding="utf-8")


def _discard_output() -> None:
    """Redirect both streams to /dev/null: the interpreter would flush its buffers at exit and report the error."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            try:
                stream.flush()
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
