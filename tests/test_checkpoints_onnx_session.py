"""ONNX Runtime as it is imported."""

import os
import subprocess
import sys
from pathlib import Path

from tests.fakes import ROOT


def test_its_import_keeps_no_usage_statistics(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    command = [sys.executable, "-B", "-c", "import models.checkpoints.onnx_session"]
    subprocess.run(command, env={**environ, "HOME": str(tmp_path)}, cwd=ROOT, check=True)
    assert not list(tmp_path.iterdir())
