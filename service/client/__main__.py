"""Command-line client: python -m service.client

    python -m service.client predict mnist digit.png
    python -m service.client train mnist --epochs 1 --follow
    python -m service.client promote mnist 3

The exit status is 0; 1 if the service refused, a job failed or no answer came; 2 for wrong arguments.
"""

if __name__ == "__main__":  # the imports below take time
    from service.client.interruption import exit_at_signals

    exit_at_signals()

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import httpx

from service.client import answers, hyperparameters, tables
from service.client.clients import URL, Client
from service.client.errors import Forbidden, TorchloopError, Unauthorized
from service.client.interruption import INTERRUPTED, ignore_signals, interrupted_once
from service.client.show import bar

T = TypeVar("T")


class _Parser(argparse.ArgumentParser):
    """A parser with one-line errors."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"torchloop: {message} (see --help)\n")


def main(
    words: Sequence[str] | None = None,
    environ: Mapping[str, str] = os.environ,
    *,
    prog: str = "python -m service.client",
) -> int:
    """Run a command. Returns the exit status; wrong arguments exit with 2."""
    options, rest = _parser(prog).parse_known_args(words)
    url = getattr(options, "url", None) or environ.get("TORCHLOOP_URL") or URL
    key = getattr(options, "key", None) or environ.get("TORCHLOOP_KEY")
    options.json = getattr(options, "json", False)
    if rest and options.run is not _train:
        options.fail(f"unknown option {rest[0]}")
    try:
        with interrupted_once(), Client(url, key=key) as client:
            return int(options.run(client, options, rest))
    except BrokenPipeError:  # the reader closed the pipe, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise Python reports it at exit
        return 1
    except (TorchloopError, OSError, httpx.InvalidURL) as err:
        return _failed(_in_words(err, url), 2 if isinstance(err, hyperparameters.BadOption | httpx.InvalidURL) else 1)
    except KeyboardInterrupt:
        return _failed("interrupted: a job that was queued goes on", INTERRUPTED)


def _in_words(err: Exception, url: str) -> str:
    if isinstance(err, Unauthorized | Forbidden):
        return f"{err}; name a key by --key or TORCHLOOP_KEY"
    if isinstance(err, httpx.InvalidURL):
        return f"{url} is not a URL ({err}): check --url or TORCHLOOP_URL"
    return (
        f"{err.filename} cannot be opened ({err.strerror})" if isinstance(err, OSError) and err.filename else str(err)
    )


def _predict(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    names, data = options.files, list(options.files)
    if options.inputs is not None:
        names, data = [], json.loads(options.inputs)
    elif not data:
        options.fail('nothing to ask about: name a FILE, or give --inputs "[[0.5]]"')
    elif len(data) == 1 or any(Path(name).suffix in {".npy", ".json"} for name in data):
        if len(data) > 1:
            options.fail("one .npy or .json file is a whole body: name it alone")
        names, data = [], data[0]
    found = client.predict(options.model, data, version=options.version)
    rows = found["predictions"]
    labels = names or (options.files if len(rows) == 1 and options.files else [str(i) for i in range(len(rows))])
    return _show(options, found, lambda _: tables.predictions(labels, rows))


def _train(client: Client, options: argparse.Namespace, rest: Sequence[str]) -> int:
    config = hyperparameters.read(options.model, client.model(options.model)["hyperparameters"], rest)
    job = client.submit(options.model, config, promote=options.promote, tensorboard=options.tensorboard)
    if options.follow:
        with bar(sys.stderr.isatty()) as show:
            job = client.follow(job["id"], show)
    _show(options, job, tables.job)
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
    return _show(options, client.models(), tables.models)


def _versions(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    return _show(options, client.versions(options.model), tables.versions)


def _jobs(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    found = client.jobs(model=options.model, state=options.state, limit=options.limit)
    return _show(options, found["jobs"], tables.jobs)


def _cancel(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    return _show(options, client.cancel(options.job), tables.job)


def _promote(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    return _show(options, client.promote(options.model, options.version), tables.promoted)


def _rollback(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    return _show(options, client.rollback(options.model), tables.promoted)


def _register(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    added = client.register(options.model, options.file.read_bytes())
    return _show(options, added, lambda version: tables.versions([version]))


def _download(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    path = options.output or Path(f"{options.model}-{options.version}.pt")
    path.write_bytes(client.download(options.model, options.version))
    return _show(options, {"path": str(path)}, lambda written: tables.say(written["path"]))


def _parser(prog: str) -> _Parser:
    shared = _Parser(add_help=False)
    shared.add_argument("--url", default=argparse.SUPPRESS, help=f"URL of the service (TORCHLOOP_URL, else {URL})")
    shared.add_argument("--key", default=argparse.SUPPRESS, help="API key (TORCHLOOP_KEY)")
    shared.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON, for programs")
    parser = _Parser(
        prog=prog,
        description="Talk to a running service.",
        parents=[shared],
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", required=True)

    def command(run: Callable[..., int], words: str, text: str) -> argparse.ArgumentParser:
        name, *arguments = words.split()
        sub = commands.add_parser(name, help=text, description=text, parents=[shared], allow_abbrev=False)
        sub.set_defaults(run=run, fail=sub.error)
        for argument in arguments:
            kind: Callable[[str], Any] = {"version": int, "file": Path}.get(argument, str)
            sub.add_argument(argument, metavar=argument.upper(), type=kind)
        return sub

    predict = command(_predict, "predict model", "answers for pictures, a .npy or a .json file, or numbers")
    predict.add_argument("files", metavar="FILE", nargs="*", help="pictures, or one .npy or .json file")
    predict.add_argument("--inputs", type=_json, help='instead of files: "[[0.5], [1.0]]"')
    predict.add_argument("--version", type=int, help="a version other than the live one")
    for name in ("train", "submit"):  # `torchloop train` fits without a service, `torchloop submit` queues a job
        train = command(
            _train,
            f"{name} model",
            "queue a training job; --epochs 1 and the like; an unknown option lists them",
        )
        train.add_argument("--follow", action="store_true", help="wait for the job and show its progress")
        promote = ("never", "if_better", "always")
        train.add_argument("--promote", choices=promote, default="if_better", help="[if_better]")
        train.add_argument("--tensorboard", action="store_true", help="keep TensorBoard event files as well")
    command(_models, "models", "list models and their live versions")
    command(_versions, "versions model", "the versions of a model")
    jobs = command(_jobs, "jobs", "training jobs, the newest first")
    jobs.add_argument("--model")
    jobs.add_argument("--state", choices=answers.State.__args__)  # type: ignore[attr-defined]
    jobs.add_argument("--limit", type=int, default=20, help="number of jobs [20]")
    command(_watch, "watch job", "follow the events of a job")
    command(_cancel, "cancel job", "stop a job")
    command(_promote, "promote model version", "make a version live")
    command(_rollback, "rollback model", "make the version before live again")
    command(_register, "register model file", "upload a state_dict as a new version")
    download = command(_download, "download model version", "the state_dict of a version")
    download.add_argument("--output", type=Path, help="output file [MODEL-VERSION.pt]")
    return parser


def _json(word: str) -> str:
    """Return a JSON argument unchanged. Raises ArgumentTypeError if it is not JSON."""
    try:
        json.loads(word)
    except ValueError as err:
        raise argparse.ArgumentTypeError(f'{word} is not JSON ({err}); write it as "[[0.5], [1.0]]"') from err
    return word


def _show(options: argparse.Namespace, found: T, show: Callable[[T], None]) -> int:
    """Print a result, as text or JSON. Returns exit status 0."""
    if options.json:
        tables.say(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        show(found)
    return 0


def _failed(reason: str, status: int) -> int:
    sys.stderr.write(f"torchloop: {' '.join(reason.split())}\n")
    return status


if __name__ == "__main__":
    exit_status = main()
    ignore_signals()
    sys.exit(exit_status)
