"""Command-line client: python -m service.client

    python -m service.client predict mnist digit.png
    python -m service.client train mnist --epochs 1 --follow
    python -m service.client data add mnist digits digits.zip
    python -m service.client promote mnist 3
    curl -s https://example.org/digit.png | python -m service.client predict mnist -

The exit status is 0; 1 if the service refused, a sample or a job failed, or no answer came; 2 for wrong arguments.
"""

if __name__ == "__main__":  # the imports below take time
    from service.client.interruption import exit_at_signals

    exit_at_signals()

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from service.client import (
    answers,
    capture_command,
    data_command,
    drift_command,
    events_command,
    fields,
    files,
    hyperparameters,
    retrain_command,
    tables,
    terminal,
    trial_command,
)
from service.client.clients import TIMEOUT_S, URL, Client
from service.client.connection import BadURL
from service.client.errors import Forbidden, TorchloopError, Unauthorized
from service.client.interruption import INTERRUPTED, ignore_signals, interrupted_once
from service.client.show import bar

_STDIN = "-"
_WHOLE = {".csv", ".npy", ".npz", ".json"}  # files of several samples
_DISTRIBUTIONS = ("torchloop-client", "torchloop")  # each has the same version


class _Parser(argparse.ArgumentParser):
    """A parser with one-line errors."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"torchloop: {message} (see --help)\n")


class _Version(argparse.Action):
    """Print the version, if asked: to look it up takes time."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        for name in _DISTRIBUTIONS:
            with suppress(PackageNotFoundError):
                tables.say(f"torchloop {version(name)}")
                parser.exit()
        tables.say("torchloop, not installed: run from its source")
        parser.exit()


class _Help(argparse.Action):
    """Print the help page; if a model is named before it, go on, so that its hyperparameters are listed."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **kwargs)

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: Any) -> None:
        parser.print_help()
        if getattr(namespace, "model", None) is None:
            tables.say("\nhyperparameters: name MODEL before --help, and the service lists its own")
            parser.exit()
        namespace.help = True


def main(
    words: Sequence[str] | None = None,
    environ: Mapping[str, str] = os.environ,
    *,
    prog: str = "python -m service.client",
) -> int:
    """Run a command. Returns the exit status; wrong arguments exit with 2."""
    return terminal.run(lambda: _main(words, environ, prog))


def _main(words: Sequence[str] | None, environ: Mapping[str, str], prog: str) -> int:
    options, rest = _parser(prog).parse_known_args(words)
    url = getattr(options, "url", None) or environ.get("TORCHLOOP_URL") or URL
    key = getattr(options, "key", None) or environ.get("TORCHLOOP_KEY")
    options.json = getattr(options, "json", False)
    if rest and options.run is not _train:
        options.fail(f"unknown option {rest[0]}")
    try:
        timeout_s = getattr(options, "timeout", TIMEOUT_S)
        with interrupted_once(), Client(url, key=key, timeout_s=timeout_s) as client:
            return int(options.run(client, options, rest))
    except (TorchloopError, OSError) as err:
        if isinstance(err, OSError) and err.filename is None:  # of the output: see terminal.run
            raise
        return _failed(_in_words(err), 2 if isinstance(err, hyperparameters.BadOption | BadURL) else 1)
    except KeyboardInterrupt:
        return _failed("interrupted: a job that was queued, or a trial that was opened, goes on", INTERRUPTED)


def _in_words(err: Exception) -> str:
    if isinstance(err, Unauthorized | Forbidden):
        return f"{err}; name a key by --key or TORCHLOOP_KEY"
    return (
        f"{err.filename} cannot be opened ({err.strerror})" if isinstance(err, OSError) and err.filename else str(err)
    )


def _predict(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    data = _asked(client, options)
    if options.output:
        path = Path(options.output).expanduser()
        path.write_bytes(client.predict_picture(options.model, data, version=options.version))
        return tables.show(options, {"path": str(path)}, lambda written: tables.say(written["path"]))
    found = client.predict(options.model, data, version=options.version, segment=options.segment)
    rows = found["predictions"]
    if options.segment:
        names = [", ".join(map(str, row["box"])) for row in rows]
    else:
        names = options.files if len(options.files) == len(rows) else [str(i) for i in range(len(rows))]
    outputs: Sequence[answers.Output] = ()
    if not options.json and any(isinstance(value, list) for row in rows for value in row.values()):
        outputs = (client.model(options.model).get("signature") or {"outputs": ()})["outputs"]
    tables.show(options, found, lambda _: tables.predictions(names, rows, outputs))
    return 1 if any("error" in row for row in rows) else 0


def _asked(client: Client, options: argparse.Namespace) -> Any:
    """Return the samples that the words of the command name."""
    names: list[str] = options.files
    if sum((bool(names), options.inputs is not None, bool(options.field))) > 1:
        options.fail("samples are given in several ways: give FILEs or texts, or --inputs, or --field")
    if options.field:
        return [fields.sample(client.model(options.model), options.field)]
    if options.inputs is not None:
        return json.loads(options.inputs)
    if not names:
        options.fail('nothing to ask about: name a FILE, - for standard input, or give --inputs "[[0.5]]"')
    if names.count(_STDIN) > 1:
        options.fail("- is standard input, which can be read once: name it once")
    whole = next((name for name in names if Path(name).suffix.lower() in _WHOLE and files.is_regular(name)), None)
    if whole and len(names) > 1:
        options.fail(f"one {Path(whole).suffix} file is a whole body: name it alone")
    if whole:
        return fields.rows(client.model(options.model), whole) if whole.lower().endswith(".csv") else whole
    return sys.stdin.buffer if names == [_STDIN] else [_content(name) for name in names]


def _content(name: str) -> str | BinaryIO:
    """Return a file name unchanged, and standard input for `-`."""
    return sys.stdin.buffer if name == _STDIN else name


def _train(client: Client, options: argparse.Namespace, rest: Sequence[str]) -> int:
    if options.help:
        tables.say("")
        tables.say(hyperparameters.described(options.model, client.model(options.model)["hyperparameters"]))
        return 0
    schema, feedback = client.model(options.model)["hyperparameters"], retrain_command.feedback_of(options)
    if feedback is None and options.dataset in (
        (schema or {}).get("properties", {}).get("dataset", {}).get("enum") or ()
    ):
        rest, options.dataset = [*rest, "--dataset", options.dataset], None  # data of the recipe: a hyperparameter
    config = hyperparameters.read(options.model, schema, rest)
    job = client.submit(
        options.model,
        config,
        promote=_policy(options),
        dataset=options.dataset,
        tensorboard=options.tensorboard,
        resources=_resources(options),
        feedback=feedback,
    )
    if options.follow:
        with bar(sys.stderr.isatty()) as show:
            job = client.follow(job["id"], show)
    tables.show(options, job, tables.job)
    return 1 if job["state"] in {"failed", "cancelled"} else 0


def _watch(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    state = ""
    for event in client.events(options.job):
        state = event.data.get("state", state)
        if options.json:
            tables.say(json.dumps({"id": event.id, "event": event.kind, **event.data}))
        else:
            tables.event(event)
    return 1 if state in {"failed", "cancelled"} else 0


def _models(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    return tables.show(options, client.models(), tables.models)


def _nodes(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    return tables.show(options, client.nodes(), tables.nodes)


def _versions(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    return tables.show(options, client.versions(options.model), tables.versions)


def _jobs(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    found = client.jobs(model=options.model, state=options.state, kind=options.kind, limit=options.limit)
    return tables.show(options, found["jobs"], tables.jobs)


def _cancel(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    return tables.show(options, client.cancel(options.job), tables.job)


def _policy(options: argparse.Namespace) -> answers.Promote:
    """Return the policy, with its bounds if there are any."""
    given = {"alpha": options.alpha, "margin": options.margin}
    bounds = {name: value for name, value in given.items() if value is not None}
    policy: answers.Promote = {options.promote: bounds} if bounds else options.promote
    return policy


def _resources(options: argparse.Namespace) -> dict[str, float] | None:
    """Return the resources that the job needs, if any."""
    given = {"cpus": options.cpus, "gpus": options.gpus, "nodes": options.nodes}
    return {name: number for name, number in given.items() if number is not None} or None


def _promote(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    return tables.show(options, client.promote(options.model, options.version), tables.promoted)


def _rollback(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    return tables.show(options, client.rollback(options.model), tables.promoted)


def _register(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    added = client.register(options.model, _content(options.file), arguments=options.arguments)
    return tables.show(options, added, lambda version: tables.versions([version]))


def _download(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    suffix = "tar" if options.artifacts else "pt"
    name = options.output or f"{options.model}-{options.version}.{suffix}"
    path = client.save(options.model, options.version, name, artifacts=options.artifacts)
    return tables.show(options, {"path": str(path)}, lambda written: tables.say(written["path"]))


def _parser(prog: str) -> _Parser:
    shared = _Parser(add_help=False)
    shared.add_argument("--url", default=argparse.SUPPRESS, help=f"URL of the service (TORCHLOOP_URL, else {URL})")
    shared.add_argument("--key", default=argparse.SUPPRESS, help="API key (TORCHLOOP_KEY)")
    text = f"seconds to wait for an answer [{TIMEOUT_S:g}]"
    shared.add_argument("--timeout", type=_seconds, metavar="SECONDS", default=argparse.SUPPRESS, help=text)
    shared.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON, for programs")
    parser = _Parser(
        prog=prog,
        description="Talk to a running service.",
        parents=[shared],
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version, and exit")
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", required=True)

    def command(
        run: Callable[..., int], words: str, text: str, help_: type[argparse.Action] | str = "help"
    ) -> argparse.ArgumentParser:
        name, *arguments = words.split()
        sub = commands.add_parser(
            name, help=text, description=text, parents=[shared], allow_abbrev=False, add_help=False
        )
        sub.add_argument("-h", "--help", action=help_, default=False, help="show this help message and exit")
        sub.set_defaults(run=run, fail=sub.error)
        for argument in arguments:
            sub.add_argument(argument, metavar=argument.upper(), type=int if argument == "version" else str)
        return sub

    text = "answers for pictures, texts, numbers, named inputs or a file of samples"
    _add_predict_options(command(_predict, "predict model", text))
    for name in ("train", "submit"):  # `torchloop train` fits without a service, `torchloop submit` queues a job
        text = "queue a training job; hyperparameters are options, such as --epochs 1: MODEL --help lists them"
        _add_train_options(command(_train, f"{name} model", text, _Help))
    data_command.add_to(commands, shared)
    capture_command.add_to(commands, shared)
    command(_models, "models", "list models and their live versions")
    command(_nodes, "nodes", "list the services that share the database, and what they have loaded")
    retrain_command.add_options(command(retrain_command.run, "retrain model", retrain_command.TEXT))
    drift_command.add_options(command(drift_command.run, "drift model", drift_command.TEXT))
    events_command.add_options(command(events_command.run, "events", events_command.TEXT))
    command(_versions, "versions model", "the versions of a model")
    jobs = command(_jobs, "jobs", "jobs, the newest first")
    jobs.add_argument("--model")
    jobs.add_argument("--state", choices=answers.State.__args__)  # type: ignore[attr-defined]
    jobs.add_argument("--kind", choices=answers.Kind.__args__)  # type: ignore[attr-defined]
    jobs.add_argument("--limit", type=int, default=20, help="number of jobs [20]")
    command(_watch, "watch job", "follow the events of a job")
    command(_cancel, "cancel job", "stop a job")
    command(_promote, "promote model version", "make a version live")
    command(_rollback, "rollback model", "make the version before live again")
    trial_command.add_to(commands, shared)
    register = command(
        _register, "register model file", "upload a state_dict or a bundle as a new version; - is standard input"
    )
    register.add_argument("--arguments", type=_json, help="constructor arguments of the network: '{\"hidden\": 64}'")
    download = command(_download, "download model version", "the state_dict of a version")
    download.add_argument("--artifacts", action="store_true", help="a bundle: tar archive with record and artifacts")
    download.add_argument("--output", help="output file [MODEL-VERSION.pt, or MODEL-VERSION.tar]")
    return parser


def _add_predict_options(predict: argparse.ArgumentParser) -> None:
    text = (
        "pictures; texts, if the model's only input is a text; or one .npy, .npz or .json file, or a .csv file of "
        "named inputs, a sample a row; - is standard input"
    )
    predict.add_argument("files", metavar="FILE", nargs="*", help=text)
    predict.add_argument("--inputs", type=_json, help='instead of files: "[[0.5], [1.0]]", or \'[{"age": 22}]\'')
    text = "a named input of one sample; a picture is NAME=@FILE; repeat it for each input"
    predict.add_argument("--field", metavar="NAME=VALUE", action="append", default=[], help=text)
    predict.add_argument("--output", metavar="FILE", help="save the picture that the model answers, as PNG")
    predict.add_argument("--version", type=int, help="a version other than the live one")
    text = "answer each sample in one picture, in reading order, with its box: left, top, right, bottom"
    predict.add_argument("--segment", action="store_true", help=text)


def _add_train_options(train: argparse.ArgumentParser) -> None:
    train.add_argument("--follow", action="store_true", help="wait for the job and show its progress")
    text = "dataset version, as field@4; a bare name means its newest version [the data of the recipe]"
    train.add_argument("--dataset", metavar="NAME", help=text)
    policies = answers.Policy.__args__  # type: ignore[attr-defined]
    train.add_argument("--promote", choices=policies, default="if_better", help="[if_better]")
    text = "with if_better or no_worse: how often chance alone may promote [if_better: the figures are compared bare]"
    train.add_argument("--alpha", type=float, help=text)
    text = "how much better it must be, or how much worse it may be, in the unit of the metric"
    train.add_argument("--margin", type=float, help=text)
    train.add_argument("--cpus", type=float, help="CPUs that the job needs, on a cluster")
    train.add_argument("--gpus", type=float, help="GPUs that it needs: 1, or a part of a shared one, as 0.25")
    train.add_argument("--nodes", type=int, help="nodes of a cluster that train it together, each with as much")
    retrain_command.add_feedback_options(train)
    train.add_argument("--tensorboard", action="store_true", help="keep TensorBoard event files as well")


def _json(word: str) -> str:
    """Return a JSON argument unchanged. Raises ArgumentTypeError if it is not JSON, which has no NaN."""
    try:
        json.loads(word, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as err:
        raise argparse.ArgumentTypeError(f'not JSON ({err}); write it as "[[0.5], [1.0]]"') from err
    return word


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = 0
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{word} is not a number of seconds above 0")
    return seconds


def _failed(reason: str, status: int) -> int:
    sys.stderr.write(f"torchloop: {' '.join(reason.split())}\n")
    return status


if __name__ == "__main__":
    exit_status = main()
    ignore_signals()
    sys.exit(exit_status)
