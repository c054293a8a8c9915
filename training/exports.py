"""python -m training.exports: write the exports of the shipped checkpoints, next to them in models/pretrained.

With OpenVINO, and the data that a checkpoint was trained on, an export has the verdicts on its numeric forms.
"""

import argparse
import os
import sys
from pathlib import Path

from models.catalog import PRETRAINED, specs
from models.checkpoints import artifact_files, onnx_file, state_dict
from models.checkpoints.onnx_export import export
from models.checkpoints.shipped import shipped_path
from models.spec import ModelSpec
from training.forms import judged
from training.recipe import Dataset, TrainingError, recipes
from training.report.console import say
from training.run import reopened


def main() -> int:
    """Write all exports."""
    parser = argparse.ArgumentParser(prog="python -m training.exports", description=__doc__)
    folder = os.environ.get("TORCHLOOP_DATA") or "data"
    parser.add_argument("--data", type=Path, default=Path(folder).expanduser(), help="folder of datasets")
    options = parser.parse_args()
    for name, spec in specs().items():
        if (PRETRAINED / f"{name}.pt").exists():
            say(f"export {write_export(name, spec, PRETRAINED, _dataset(name, options.data))}")
    return 0


def write_export(name: str, spec: ModelSpec, folder: Path, dataset: Dataset | None = None) -> Path:
    """Export the checkpoint NAME.pt in `folder`, and replace its export; evaluate its forms on `dataset`, if given.

    Raises CheckpointError and OSError.
    """
    network, record = state_dict.load(name, spec, folder / f"{name}.pt")
    artifacts = artifact_files.load(record.artifacts, folder)
    path = shipped_path(folder, spec, record)
    exported = export(spec, network, artifacts)
    if dataset is not None:
        exported = judged(exported, spec, artifacts, dataset)
    for verdict in exported.verdicts:
        changed = f"{verdict.changed} of {verdict.rows} labels, a probability by {verdict.largest_change:.4f}"
        say(f"{name} in {verdict.form} changes {changed}" if not verdict.fault else f"{name}: {verdict.fault}")
    onnx_file.write(exported, path)
    for other in folder.glob(f"{name}.*.safetensors"):
        if other != path:
            other.unlink()
    return path


def _dataset(name: str, folder: Path) -> Dataset | None:
    """Return the data that a shipped checkpoint was trained on; None if it is not there."""
    if name not in recipes():
        return None
    try:
        return reopened(name, recipes()[name], PRETRAINED / f"{name}.pt", folder)[2]
    except TrainingError as err:
        say(f"{name}: its numeric forms are not judged: {err}")
        return None


if __name__ == "__main__":
    sys.exit(main())
