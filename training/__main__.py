"""python -m training mnist --epochs 1
python -m training compare regressor --vary optimizer=sgd,adam --lr 0.05 --plot curves.png
python -m training evaluate mnist models/pretrained/mnist.pt

Train a model, write its checkpoint, and print its path and metrics. `--help` lists all options.
"""

if __name__ == "__main__":  # the imports below take time
    import gc

    from models.signals import exit_at_signals

    exit_at_signals()
    gc.disable()  # until main

import contextlib
import json
import os
import subprocess
import sys
from argparse import ArgumentTypeError, Namespace, _ArgumentGroup
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

from models import garbage, project, terminal
from models.catalog import specs
from models.checkpoints.storage import Storage
from models.device import resolve
from models.project import ProjectError, of_any_folder
from models.signals import INTERRUPTED, Interruption, ignore_signals
from training.compare import Trial, compare, table, variants
from training.dataset_file import add_options, dataset_file, own_data, take_reference
from training.flags import Parser, add_flags, add_presets, command_line, read_config
from training.recipe import Progress, TrainingError, checked, discovered, recipes
from training.report import plots
from training.report.console import confusions, figures, say, shown_progress
from training.report.tensorboard import EventFile
from training.run import held_out, reopened, run

_PROG = "python -m training"
_LAST_RESORT_S = 10.0  # from the first signal
_OWN_DATA = "--dataset takes a dataset version in the store, too, as field@4, or a bare name for its newest."
_STORE_READ = "folder in which datasets are found"
_DATA_HELP = "folder of datasets (TORCHLOOP_DATA, else data)"


def main(words: Sequence[str] | None = None, *, prog: str = _PROG) -> int:
    """Run the command. Status: 0, 1 if the run failed, 2 for wrong arguments, 130 after SIGINT, SIGTERM or SIGHUP."""
    garbage.resume()
    return terminal.run(lambda: _main(words, prog))


def _main(words: Sequence[str] | None, prog: str) -> int:
    try:
        words = project.take_option(sys.argv[1:] if words is None else words)
        project.of(os.environ).enter()
    except ProjectError as err:
        return _stopped(str(err), status=2)
    if "--schemas" in words:
        return _print_schemas(words, prog)
    parser = _parser(prog)
    options = parser.parse_args(words)
    if options.model is None:
        parser.error(f"name a model: {', '.join(recipes())}")
    try:
        with Interruption(_LAST_RESORT_S) as interruption:
            options.act(options, interruption.check)
    except TrainingError as err:
        return _stopped(str(err), status=1)
    except KeyboardInterrupt:
        return _stopped("interrupted: nothing more is saved", status=INTERRUPTED)
    return 0


def _parser(prog: str = _PROG) -> Parser:
    parser = Parser(prog=prog, description="Fit a model and write its checkpoint.")
    parser.add_argument("--schemas", action="store_true", help="print every recipe's hyperparameters as JSON, and exit")
    project.add_option(parser)
    models = parser.add_subparsers(dest="model", metavar="MODEL", title="models")
    for name in recipes():
        summary = specs()[name].summary.replace("%", "%%")
        of_model = models.add_parser(name, help=summary, description=summary)
        _add_hyperparameters(of_model, name)
        of_model.set_defaults(act=_train)
        _add_paths(of_model.add_argument_group("files"))
        add_options(of_model.add_argument_group("own data", _OWN_DATA), recipes()[name].config)
    if "compare" not in recipes():
        _add_comparison(models.add_parser("compare", help="fit a model with several values of one hyperparameter"))
    if "evaluate" not in recipes():
        _add_evaluation(models.add_parser("evaluate", help="print the metrics of a checkpoint on its held-out data"))
    return parser


def _add_hyperparameters(parser: Parser, name: str) -> None:
    if presets := recipes()[name].presets:
        add_presets(parser.add_argument_group("presets"), presets)
    add_flags(parser.add_argument_group("hyperparameters"), recipes()[name].config)
    parser.set_defaults(fail=parser.error, name=name)


def _add_comparison(parser: Parser) -> None:
    models = parser.add_subparsers(metavar="MODEL", title="models", required=True)
    for name in recipes():
        of_model = models.add_parser(name, help=f"compare runs of {name}")
        _add_hyperparameters(of_model, name)
        of_model.set_defaults(act=_compare)
        group = of_model.add_argument_group("comparison")
        group.add_argument("--vary", required=True, metavar="NAME=A,B,...", help="e.g. --vary optimizer=sgd,adam")
        group.add_argument("--plot", type=_path_with(".png"), help="plot the curves of all runs into this .png file")
        _add_data(group)
        own = of_model.add_argument_group("own data", _OWN_DATA)
        add_options(own, recipes()[name].config)
        _add_store(own, _STORE_READ)


def _add_evaluation(parser: Parser) -> None:
    parser.description = (
        "Print the metrics of a checkpoint on the validation and test splits of its dataset. For classes: accuracy, "
        "mean negative log likelihood (loss), calibration error (15 bins), confusion matrix and recall of each class."
    )
    parser.add_argument("name", choices=list(recipes()), metavar="MODEL", help=", ".join(recipes()))
    parser.add_argument(
        "checkpoint",
        type=_path,
        metavar="FILE",
        help="a state_dict of torch.save or safetensors, e.g. one in the store",
    )
    parser.add_argument("--data", type=_path, default=_setting("DATA", "data"), help=_DATA_HELP)
    own = parser.add_argument_group("own data", _OWN_DATA)
    add_options(own)
    _add_store(own, _STORE_READ)
    parser.set_defaults(act=_evaluate, fail=parser.error)


def _add_paths(group: _ArgumentGroup) -> None:
    _add_data(group)
    _add_store(group, "folder in which checkpoints/MODEL/DIGEST.pt is written, and datasets are found")
    group.add_argument("--output", type=_path_with(".pt"), help="write the checkpoint to this .pt file instead")
    group.add_argument(
        "--register", action="store_true", help="register the checkpoint as a version that can be promoted"
    )
    group.add_argument("--tensorboard", type=_path, metavar="DIR", help="write TensorBoard event files to this folder")
    group.add_argument("--plot", type=_path_with(".png"), help="plot the run and its fit into this .png file")


def _add_store(group: _ArgumentGroup, text: str) -> None:
    text = f"{text} (TORCHLOOP_STORE, else store)"
    group.add_argument("--store", type=_path, default=_setting("STORE", "store"), help=text)


def _add_data(group: _ArgumentGroup) -> None:
    device = _setting("DEVICE", "auto")
    group.add_argument("--device", type=_device, default=device, help="auto, cpu, cuda, cuda:N, mps (TORCHLOOP_DEVICE)")
    group.add_argument("--data", type=_path, default=_setting("DATA", "data"), help=_DATA_HELP)


def _setting(name: str, default: str) -> str:
    """Return a setting of the service. An empty one counts as unset."""
    value = os.environ.get(f"TORCHLOOP_{name}", "")
    return value if value.strip() else default


def _path(word: str) -> Path:
    try:
        return Path(word).expanduser()
    except RuntimeError as err:
        raise ArgumentTypeError(f"{word}: the home folder is unknown: write the path without ~") from err


def _device(word: str) -> str:
    try:
        return resolve(word)
    except ValueError as err:
        raise ArgumentTypeError(str(err)) from err


def _path_with(suffix: str) -> Callable[[str], Path]:
    def path(word: str) -> Path:
        if Path(word).suffix != suffix:
            raise ArgumentTypeError(f"{word} must end in {suffix}")
        return _path(word)

    return path


def _preset(options: Namespace) -> tuple[str | None, Mapping[str, Any]]:
    """Return the chosen preset, if any, and its hyperparameters."""
    chosen: str | None = getattr(options, "preset", None)
    return chosen, recipes()[options.name].presets[chosen] if chosen else {}


def _train(options: Namespace, check: Callable[[], None]) -> None:
    name, recipe = options.name, recipes()[options.name]
    take_reference(options, recipe)
    chosen, preset = _preset(options)
    try:
        config = read_config(recipe.config, vars(options), preset)
    except ValueError as err:
        options.fail(str(err))
    folder, file = Storage(options.store).checkpoints(name), None
    if options.output:
        folder, file = options.output.parent, options.output.name
    history: list[Progress] = []
    event_file = EventFile(options.tensorboard) if options.tensorboard else None
    with shown_progress() as show:

        def report(progress: Progress) -> None:
            history.append(progress)
            if event_file:
                event_file.add(progress)
            show(progress)

        with (
            closing(event_file) if event_file else nullcontext(),
            dataset_file(options, name, recipe, check) as dataset,
        ):
            command = command_line(name, config, chosen, preset) + own_data(options, dataset)
            outcome = run(
                name,
                recipe,
                config,
                data=options.data,
                folder=folder,
                file=file,
                report=checked(report, check),
                command=command,
                device=options.device,
                dataset=dataset,
            )
            if event_file:
                event_file.finish(config, outcome.record.metrics)
    say(f"checkpoint {outcome.path}")
    _say_figures(outcome.record.metrics)
    if options.register:
        _register(name, outcome.path, options.store)
    if options.plot:
        plots.save(plots.draw(command, history, recipe, outcome.network, outcome.dataset), options.plot)
        say(f"plot {options.plot}")


def _compare(options: Namespace, check: Callable[[], None]) -> None:
    name, recipe = options.name, recipes()[options.name]
    take_reference(options, recipe)
    values = {key: value for key, value in vars(options).items() if key in recipe.config.model_fields}
    try:
        varied, configs = variants(recipe.config, options.vary, values, _preset(options)[1])
    except ValueError as err:
        options.fail(str(err))
    if varied == "dataset" and (options.stored or options.dataset_file):
        options.fail("--vary dataset: all runs would learn your own data; remove one of the two")

    def tell(trial: Trial) -> None:
        with contextlib.suppress(OSError):  # the comparison goes on, whatever becomes of its log
            sys.stderr.write(f"{varied} {trial.label}: {trial.seconds:.1f} s\n")

    with dataset_file(options, name, recipe, check) as file:
        trials = compare(name, recipe, configs, options.data, tell, device=options.device, check=check, dataset=file)
    say(table(varied, trials))
    if options.plot:
        plots.save(plots.draw_comparison(f"{name}: {varied} compared", trials, recipe), options.plot)
        say(f"plot {options.plot}")


def _evaluate(options: Namespace, check: Callable[[], None]) -> None:
    recipe = recipes()[options.name]
    take_reference(options, recipe)
    if given := getattr(options, "dataset", None):
        options.fail(
            f"--dataset {given}: a checkpoint is evaluated on the data that its record names, or on a dataset version "
            "in the store, as field@4, or on a file with --dataset-file"
        )
    with dataset_file(options, options.name, recipe, check) as file:
        network, _, dataset = reopened(options.name, recipe, options.checkpoint, options.data, file)
        weights = sum(parameters.numel() for parameters in network.parameters())
        sizes = f"{len(dataset.test):,} test samples, {len(dataset.validation):,} validation samples"
        say(f"{options.name}, {weights:,} parameters, on {dataset.name}: {sizes}")
        _say_figures(held_out(recipe, network, dataset)[0])


def _say_figures(metrics: Mapping[str, float]) -> None:
    say(figures(metrics))
    if wrong := confusions(metrics):
        say(wrong)


def _register(name: str, path: Path, store: Path) -> None:
    """Run the service's register command in a subprocess, because training must not import the service."""
    command = [sys.executable, "-m", "service.register", name, str(path)]
    environ = of_any_folder({**os.environ, "TORCHLOOP_STORE": str(store)})
    if subprocess.run(command, env=environ, check=False).returncode:
        raise TrainingError("the checkpoint was written but not registered")


def _print_schemas(words: Sequence[str], prog: str) -> int:
    """Print the recipes as JSON and nothing else: what models and recipes print goes to standard error."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as out:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        _parser(prog).parse_args(words)
        with contextlib.suppress(BrokenPipeError):  # the web process has ended
            out.write(_schemas())
    return 0


def _schemas() -> str:
    """Describe all recipes as JSON; for a file that was left aside, the `fault`.

    The web process, which must not import training, runs this in a subprocess.
    """
    described = {
        name: {
            "hyperparameters": recipe.config.model_json_schema(),
            "metric": recipe.metric,
            "higher_is_better": recipe.higher_is_better,
            "target": recipe.target,
            "built_in": recipe.built_in,
        }
        for name, recipe in recipes().items()
    }
    faulty = {name: {"fault": fault} for name, fault in sorted(discovered().faults("training").items())}
    return json.dumps(faulty | described)


def _stopped(reason: str, *, status: int) -> int:
    sys.stderr.write(f"python -m training: {reason}\n")
    return status


if __name__ == "__main__":
    exit_status = main()
    ignore_signals()
    sys.exit(exit_status)
