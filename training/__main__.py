"""python -m training mnist --epochs 1

Fits a model, writes its checkpoint, and prints where it lies and how good it is. Add `--help` to learn what can be set.
"""

import json
import os
import subprocess
import sys
from argparse import ArgumentTypeError, Namespace, _ArgumentGroup
from collections.abc import Callable, Sequence
from pathlib import Path

from models.catalog import specs
from training import plots
from training.console import figures, heeding_ctrl_c, say, shown_progress
from training.flags import Parser, add_flags, command_line, read_config
from training.recipe import Progress, TrainingError, recipes
from training.run import run
from training.tensorboard import EventFile


def main(words: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 where the run failed, 130 where Ctrl-C ended it. Words it cannot take exit with 2."""
    parser = _parser()
    options = parser.parse_args(words)
    if options.schemas:
        say(_schemas())
        return 0
    if options.model is None:
        parser.error(f"name a model: {', '.join(recipes())}")
    try:
        _train(options)
    except TrainingError as err:
        return _stopped(str(err), status=1)
    except KeyboardInterrupt:
        return _stopped("interrupted: nothing more is saved", status=130)
    return 0


def _parser() -> Parser:
    parser = Parser(prog="python -m training", description="Fit a model and write its checkpoint.")
    parser.add_argument("--schemas", action="store_true", help="print every recipe's hyperparameters as JSON, and exit")
    models = parser.add_subparsers(dest="model", metavar="MODEL", title="models")
    for name, recipe in recipes().items():
        summary = specs()[name].summary.replace("%", "%%")
        of_model = models.add_parser(name, help=summary, description=summary)
        of_model.set_defaults(fail=of_model.error)
        add_flags(of_model.add_argument_group("hyperparameters"), recipe.config)
        _add_paths(of_model.add_argument_group("files"))
    return parser


def _add_paths(group: _ArgumentGroup) -> None:
    data, store = (os.environ.get(f"TORCHLOOP_{key}") or key.lower() for key in ("DATA", "STORE"))
    group.add_argument("--data", type=Path, default=Path(data), help="folder of datasets (TORCHLOOP_DATA, else data)")
    group.add_argument(
        "--store",
        type=Path,
        default=Path(store),
        help="folder in which checkpoints/MODEL/DIGEST.pt is written (TORCHLOOP_STORE, else store)",
    )
    group.add_argument("--output", type=_path_with(".pt"), help="write the checkpoint to this .pt file instead")
    group.add_argument("--register", action="store_true", help="make the checkpoint a version that can be promoted")
    group.add_argument("--tensorboard", type=Path, metavar="DIR", help="write TensorBoard event files into this folder")
    group.add_argument("--plot", type=_path_with(".png"), help="draw the run and its fit into this .png file")


def _path_with(suffix: str) -> Callable[[str], Path]:
    def path(word: str) -> Path:
        if Path(word).suffix != suffix:
            raise ArgumentTypeError(f"{word} must end in {suffix}")
        return Path(word)

    return path


def _train(options: Namespace) -> None:
    name, recipe = options.model, recipes()[options.model]
    try:
        config = read_config(recipe.config, vars(options))
    except ValueError as err:
        options.fail(str(err))
    folder, file = options.store / "checkpoints" / name, None
    if options.output:
        folder, file = options.output.parent, options.output.name
    command = command_line(name, config)
    history: list[Progress] = []
    event_file = EventFile(options.tensorboard) if options.tensorboard else None
    with shown_progress() as show:

        def report(progress: Progress) -> None:
            history.append(progress)
            if event_file:
                event_file.add(progress)
            show(progress)

        with heeding_ctrl_c(report) as told:
            outcome = run(
                name, recipe, config, data=options.data, folder=folder, file=file, report=told, command=command
            )
    say(f"checkpoint {outcome.path}")
    say(figures(outcome.record.metrics))
    if event_file:
        event_file.close(config, outcome.record.metrics)
    if options.register:
        _register(name, outcome.path, options.store)
    if options.plot:
        plots.save(plots.draw(command, history, recipe, outcome.network, outcome.dataset), options.plot)
        say(f"plot {options.plot}")


def _register(name: str, path: Path, store: Path) -> None:
    """By the service's own command, in a process of its own: training never imports the service."""
    command = [sys.executable, "-m", "service.register", name, str(path)]
    if subprocess.run(command, env={**os.environ, "TORCHLOOP_STORE": str(store)}, check=False).returncode:
        raise TrainingError("the checkpoint was written, but could not be registered")


def _schemas() -> str:
    """What the web process, which must not import training, asks in a process of its own."""
    return json.dumps(
        {
            name: {
                "hyperparameters": recipe.config.model_json_schema(),
                "metric": recipe.metric,
                "higher_is_better": recipe.higher_is_better,
            }
            for name, recipe in recipes().items()
        }
    )


def _stopped(reason: str, *, status: int) -> int:
    sys.stderr.write(f"python -m training: {reason}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
