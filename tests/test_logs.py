"""Logs: one JSON object a line, whatever is logged; text with date and time."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from tests.fakes import ROOT

NOISE = {
    "a warning": "import warnings; warnings.warn('odd\\nthing')",
    "a caught exception": "try: 1 / 0\nexcept ZeroDivisionError: logging.getLogger('x').exception('failed')",
    "an uncaught exception": "raise ValueError('two\\nlines')",
    "an exception in a thread": "import threading; t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()",
    "an exception in a destructor": "class X:\n    def __del__(self): raise ValueError('lost')\nx = X()\ndel x",
    "a field of no JSON type": "logging.getLogger('x').error('m', extra={'field': object()})",
    "output of the torch subprocess": (
        "import os\nfrom service.execution.process import log_output\nreader, writer = os.pipe()\n"
        "os.write(writer, b'Traceback (most recent call last):\\n  File \"x\"\\nValueError: y\\xff\\n')\n"
        "os.close(writer)\n"
        "log_output(os.fdopen(reader, 'rb', buffering=0))"
    ),
}


def logged(code: str, log_format: str) -> list[str]:
    head = "import logging\nfrom service.logs import configure_logging, log_uncaught\nlog_uncaught()\n"
    head += f"configure_logging({log_format!r})\n"
    done = subprocess.run([sys.executable, "-c", head + code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == ""
    return done.stderr.splitlines()


@pytest.mark.many
@pytest.mark.parametrize("code", NOISE.values(), ids=NOISE)
def test_every_line_is_json(code: str) -> None:
    lines: list[Mapping[str, Any]] = [json.loads(line) for line in logged(code, "json")]
    assert len(lines) == 1
    assert {"at", "level", "message"} <= lines[0].keys()
    if "1 / 0" in code or "raise" in code:
        assert "Traceback" in lines[0]["trace"]
    if "log_output" in code:
        assert lines[0]["output"].splitlines()[0] == "Traceback (most recent call last):"
        assert lines[0]["output"].splitlines()[-1] == "ValueError: y\ufffd"


@pytest.mark.many
@pytest.mark.parametrize("code", NOISE.values(), ids=NOISE)
def test_every_record_of_text_begins_with_date_and_time(code: str) -> None:
    first, *rest = logged(code, "text")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z]+ ", first)
    assert all(line.startswith("    ") for line in rest)
