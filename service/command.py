"""The command `torchloop`: one name for the service, its worker, offline training and the client.

Each verb imports its own part only, so that `torchloop predict` loads neither FastAPI nor PyTorch.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from models import project, terminal
from models.project import ProjectError
from models.signals import INTERRUPTED, exit_at_signals, ignore_signals

VERBS = {
    "Your own models": {
        "new": "write the files of a new model: its spec, its recipe and a test",
        "check": "run the contract tests on your models and recipes",
    },
    "Serving": {
        "serve": "start the service",
        "worker": "start a training worker of its own, on any machine that sees the database and the store",
        "haproxy": "configure HAProxy in front of several machines, or the servers of a running one",
        "cluster": "have training jobs, and web processes, run on the nodes of a Ray cluster",
    },
    "Training without a service": {
        "train": "fit a model and write its checkpoint",
        "compare": "fit a model with several values of one hyperparameter",
        "evaluate": "print the figures of a checkpoint on its held-out data",
    },
    "Looking after the store": {
        "prune": "remove versions, jobs and files that the rules do not keep; --dry-run lists them",
        "migrate": "bring the database to the schema of this version, before it is started",
        "fsck": "name damaged, missing and orphaned files; changes nothing",
        "artifacts": "copy the files to an object store, or back: artifacts copy FROM TO",
    },
    "Talking to a running service": {
        "predict": "send pictures, files or numbers and print the predictions",
        "data": "upload, list, report and delete datasets of your own",
        "capture": "show or set which answers are captured",
        "captures": "list captured samples, also those to audit",
        "original": "save the picture file of a captured sample, as it came",
        "feedback": "tell the truth about an answer: feedback ID --truth 7",
        "truths": "what a truth of a model is: its outputs, and their labels",
        "accuracy": "how right a version was, by audits and outcomes",
        "replay": "compute a captured prediction again, and compare",
        "erase": "erase captured samples for good",
        "submit": "queue a training job; --feedback-since P7D also learns from truths about answers",
        "retrain": "show or set when a model is retrained on its feedback",
        "jobs": "list training jobs, the newest first",
        "watch": "follow a job to its end",
        "cancel": "stop a job",
        "models": "list the models and their live versions",
        "nodes": "list the services that share the database, and what they have loaded",
        "drift": "compare what a version was asked and answered lately with its data",
        "events": "print all changes, those that there are or those that come",
        "versions": "list the versions of a model",
        "promote": "make a version live",
        "rollback": "make the previous version live again",
        "trial": "let a version prove itself on live traffic before it is live; show, advance, pause or end its trial",
        "register": "upload a state_dict, with its artifacts, as a new version",
        "download": "save the state_dict of a version, or its bundle with artifacts",
    },
}
# Verb -> its module, the words before the user's, and the name in its usage line; every other verb is the client's.
_OWN: dict[str, tuple[str, tuple[str, ...], str]] = {
    "new": ("training.new", (), "torchloop new"),
    "check": ("service.check training.check", (), "torchloop check"),  # one after the other
    "serve": ("service.__main__", (), "torchloop serve"),
    "worker": ("service.worker", (), "torchloop worker"),
    "cluster": ("service.cluster", (), "torchloop cluster"),
    "train": ("training.__main__", (), "torchloop train"),
    "compare": ("training.__main__", ("compare",), "torchloop"),
    "evaluate": ("training.__main__", ("evaluate",), "torchloop"),
    "prune": ("service.upkeep.prune", (), "torchloop prune"),
    "migrate": ("service.upkeep.migrate", (), "torchloop migrate"),
    "fsck": ("service.upkeep.fsck", (), "torchloop fsck"),
    "haproxy": ("service.upkeep.haproxy", (), "torchloop haproxy"),
    "artifacts": ("service.upkeep.artifacts", (), "torchloop artifacts"),
}
_WRONG = 2  # exit status of wrong arguments or settings
_PROJECT = "--project DIR, with any command: the folder of your own models, as TORCHLOOP_PROJECT."


def run() -> int:
    """Entry point of the installed command. Until a verb installs its own handlers, signals end it at once."""
    exit_at_signals(0 if sys.argv[1:2] in (["serve"], ["worker"], ["cluster"]) else INTERRUPTED)
    status = main()
    ignore_signals()
    return status


def main(words: Sequence[str] | None = None) -> int:
    """Run the verb that `words` (default: the command line) begins with. Returns the exit status, 2 for a bad verb."""
    return terminal.run(lambda: _main(words))


def _main(words: Sequence[str] | None) -> int:
    try:
        verb, *rest = project.take_option(sys.argv[1:] if words is None else words) or ["--help"]
    except ProjectError as err:
        sys.stderr.write(f"torchloop: {err}\n")
        return 2
    if verb in {"-h", "--help"}:
        sys.stdout.write(_help())
        return 0
    if verb == "--version":
        from importlib.metadata import version  # noqa: PLC0415 - half of the start-up time of this module

        sys.stdout.write(f"torchloop {version('torchloop')}\n")
        return 0
    if not any(verb in verbs for verbs in VERBS.values()):
        sys.stderr.write(f"torchloop: there is no command {verb} (see torchloop --help)\n")
        return 2
    modules, before, prog = _OWN.get(verb, ("service.client.__main__", (verb,), "torchloop"))
    statuses = [0]
    for module in modules.split():
        if statuses[-1] != _WRONG:
            statuses.append(int(import_module(module).main([*before, *rest], prog=prog)))
    return max(statuses)


def _help() -> str:
    lines = ["usage: torchloop COMMAND ...", "", "Train, evaluate, promote, serve and roll back PyTorch models."]
    for title, verbs in VERBS.items():
        lines += ["", f"{title}:", *(f"  {verb:<10}{text}" for verb, text in verbs.items())]
    lines += ["", "torchloop COMMAND --help lists the options of one; torchloop --version.", _PROJECT, ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run())
