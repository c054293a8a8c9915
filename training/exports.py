"""python -m training.exports: write the exports of the shipped checkpoints, next to them in models/pretrained."""

import argparse
import sys
from pathlib import Path

from models.catalog import PRETRAINED, specs
from models.checkpoints import artifact_files, onnx_file, state_dict
from models.checkpoints.onnx_export import export
from models.checkpoints.shipped import shipped_path
from models.spec import ModelSpec
from training.report.console import say


def main() -> int:
    """Write all exports."""
    argparse.ArgumentParser(prog="python -m training.exports", description=__doc__).parse_args()
    for name, spec in specs().items():
        if (PRETRAINED / f"{name}.pt").exists():
            say(f"export {write_export(name, spec, PRETRAINED)}")
    return 0


def write_export(name: str, spec: ModelSpec, folder: Path) -> Path:
    """Export the checkpoint NAME.pt in `folder`, and replace its export there. Raises CheckpointError and OSError."""
    network, record = state_dict.load(name, spec, folder / f"{name}.pt")
    path = shipped_path(folder, spec, record)
    onnx_file.write(export(spec, network, artifact_files.load(record.artifacts, folder)), path)
    for other in folder.glob(f"{name}.*.safetensors"):
        if other != path:
            other.unlink()
    return path


if __name__ == "__main__":
    sys.exit(main())
