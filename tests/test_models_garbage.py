"""The garbage collector stands still while a command imports its modules, and only then."""

import gc
import subprocess
import sys

import pytest

from models.garbage import not_collected
from tests.fakes import ROOT

# Runs a command up to its --help, which main prints, and says whether garbage was collected at the imports and after.
CODE = """
import atexit, gc, runpy, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        seen.append(gc.isenabled())
seen = []
sys.meta_path.insert(0, Watch())
sys.argv = [sys.argv[1], "--help"]
atexit.register(lambda: print(all(seen), gc.isenabled(), gc.get_freeze_count() > 1000, file=sys.stderr))
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", ["service.worker", "training"])
def test_garbage_is_collected_from_the_main_of_a_command_on(command: str) -> None:
    words = [sys.executable, "-c", CODE, command]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == "False True True\n"


@pytest.mark.parametrize("before", [True, False])
def test_the_collector_is_as_before_after_a_pause(before: bool) -> None:
    try:
        (gc.enable if before else gc.disable)()
        with not_collected():
            assert not gc.isenabled()
        assert gc.isenabled() == before
    finally:
        gc.enable()
