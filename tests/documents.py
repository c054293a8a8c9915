"""Parse the documentation pages and run the commands that they show.

A page is read from top to bottom. Its `sh` blocks are commands; a `json` or `text` block that comes next is what the
last of them answers, with "..." for what differs from run to run. Code under `<!-- file: PATH -->` is that file. What
cannot be done here is a `console` block. The line that starts the service divides a page: a server is started there.
"""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.fakes import ROOT, running_server

README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))
_HERE = "127.0.0.1:8000"
_ADDRESS = f"http://{_HERE}"
_BLOCK = re.compile(r"^(?:<!-- file: (\S+) -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_START = re.compile(r"^((?:TORCHLOOP_\w+=\S+ )*)(?:make serve|\.venv/bin/python -m service)$")
_END = "-- end of a block --"
_OFFLINE = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")  # no service of a page downloads data
_TOLERANCE = 0.02  # of a printed number that is no integer


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block. `file` is what it is the content of, where the page says so."""

    language: str
    text: str
    file: str = ""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Commands, and the output that the page shows for them; None if it shows none."""

    commands: str
    answer: Block | None

    @property
    def is_refused(self) -> bool:
        """Whether the answer is a problem document: the one case in which a status of 400 and more is right."""
        return self.answer is not None and '"status": 4' in self.answer.text


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    """The blocks of a page, in order."""
    found = _BLOCK.findall(page.read_text())
    return tuple(Block(file=file, language=language, text=text) for file, language, text in found)


def copy_of_the_checkout(folder: Path, page: Path) -> Path:
    """Copy the checkout to a folder, with the files that the page shows."""
    copy = folder / "copy"
    for name in ("models", "training", "service", "benchmarks", "examples", "tests"):
        shutil.copytree(ROOT / name, copy / name)  # with the compiled files, which are valid there, too
    for name in ("pyproject.toml", "Makefile"):
        shutil.copy(ROOT / name, copy)
    for block in (block for block in blocks(page) if block.file):
        path = copy / block.file
        assert not path.exists(), f"{block.file} is there already: a page adds files and changes none"
        path.write_text(block.text)
    return copy


def do(page: Path, copy: Path) -> list[str]:
    """Do all that the page says, in a copy of the checkout: what came out, by step. What it promises is asserted."""
    before, settings, after = _divided(page)
    outputs = _run(before, copy, _ADDRESS)
    if settings is not None:
        with server(copy, settings) as url:
            outputs += _run(after, copy, url)
    return outputs


@contextmanager
def server(copy: Path, settings: Mapping[str, str]) -> Iterator[str]:
    """The URL of a service that runs in the copy, with its own store and a worker."""
    own = {"TORCHLOOP_STORE": str(copy / "store"), "TORCHLOOP_WORKER": "embedded", **_OFFLINE}
    with running_server({**own, **settings}, cwd=copy) as url:
        yield url


def _divided(page: Path) -> tuple[list[Step], dict[str, str] | None, list[Step]]:
    """The steps before the service is started, the settings it is started with, the steps after."""
    before: list[Step] = []
    after: list[Step] = []
    settings: dict[str, str] | None = None
    shown = blocks(page)
    for block, following in zip(shown, (*shown[1:], None), strict=True):
        if block.language != "sh":
            continue
        if started := _START.match(block.text.strip()):
            assert settings is None, f"{page.name} starts the service twice"
            settings = dict(word.split("=", 1) for word in shlex.split(started[1]))
            continue
        answer = following if following and following.language in {"json", "text"} and not following.file else None
        (before if settings is None else after).append(Step(commands=block.text, answer=answer))
    return before, settings, after


def _run(steps: list[Step], folder: Path, url: str) -> list[str]:
    """The steps in one shell, so that a variable set in one is there in the next."""
    lines = ["set -euo pipefail", 'curl() { command curl --silent --show-error $fail "$@"; }']
    for step in steps:
        lines += [f"fail={'' if step.is_refused else '--fail'}", step.commands, f"echo; echo '{_END}'"]
    script = (
        "\n".join(lines)
        .replace(_HERE, url.removeprefix("http://"))
        .replace(".venv/bin/python", shlex.quote(sys.executable))
        .replace(".venv/bin/torchloop", f"{shlex.quote(sys.executable)} -m service.command")
    )
    here = shlex.quote(str(Path(sys.executable).parent))
    script = re.sub(r"^make ", f"make --no-print-directory BIN={here} SET_UP=true ", script, flags=re.MULTILINE)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TORCHLOOP_")}
    command = ["bash", "-c", script]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=300, check=False)
    outputs = [output.strip() for output in done.stdout.split(_END)]
    assert done.returncode == 0, (steps[len(outputs) - 1].commands, outputs[-1], done.stderr)
    for step, output in zip(steps, outputs, strict=False):
        if step.answer is not None:
            assert _keeps(step.answer, output), f"{step.commands}\nanswered\n{output}\nand not\n{step.answer.text}"
    return outputs[:-1]


def _keeps(promised: Block, output: str) -> bool:
    if promised.language == "json":
        return _same(_documents(promised.text), _documents(output))
    wanted = [line.replace("[", "[[]").replace("...", "*") for line in promised.text.splitlines()]
    given = output.splitlines()
    return all(any(fnmatch.fnmatchcase(line.strip(), pattern) for line in given) for pattern in wanted)


def _documents(text: str) -> list[Any]:
    """JSON documents one after the other."""
    found = []
    decoder = json.JSONDecoder()
    text = text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].strip()
    return found


def _same(promised: Any, given: Any) -> bool:
    """Whether what was given is what was promised. "..." is anything, also as a key, or as the rest of a list."""
    if isinstance(promised, str) and "..." in promised:
        return promised == "..." or (isinstance(given, str) and given.startswith(promised.partition("...")[0]))
    if isinstance(promised, float):
        return isinstance(given, float | int) and abs(given - promised) <= _TOLERANCE * max(1, abs(promised))
    if type(promised) is not type(given):
        return False
    if isinstance(promised, dict):
        names = promised.keys() - {"..."}
        there = names <= given.keys() if "..." in promised else names == given.keys()
        return there and all(_same(promised[name], given[name]) for name in names)
    if isinstance(promised, list):
        items = promised[:-1] if promised[-1:] == ["..."] else promised
        enough = len(given) >= len(items) if items is not promised else len(given) == len(items)
        return enough and all(map(_same, items, given))
    return bool(promised == given)
