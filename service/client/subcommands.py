"""Commands that are added to a parser's, with their positional arguments."""

import argparse
from collections.abc import Callable
from typing import Any


def added(
    commands: Any, shared: argparse.ArgumentParser, run: Callable[..., int], words: str, text: str
) -> argparse.ArgumentParser:
    """Add a command that calls `run`. `words` are its name and arguments; `shared` has the options of every command."""
    name, *arguments = words.split()
    sub: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text, parents=[shared], allow_abbrev=False
    )
    sub.set_defaults(run=run, fail=sub.error)
    for argument in arguments:
        sub.add_argument(argument, metavar=argument.upper(), type=int if argument == "version" else str)
    return sub
