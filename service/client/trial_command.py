"""Command `trial`: open a trial of a version, show it, advance, pause, resume or abort it."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from service.client import stages, tables, trial_tables
from service.client.clients import Client
from service.client.trial_answers import Conditions, Trial

_MOVES: Mapping[str, Callable[[Client], Callable[..., Trial]]] = {
    "advance": lambda client: client.advance_trial,
    "pause": lambda client: client.pause_trial,
    "resume": lambda client: client.resume_trial,
    "abort": lambda client: client.abort_trial,
}
_OF_OPENING = ("stages", "key_header", "alpha", "agreement", "p95_ms", "accuracy", "when_undecided", "max")


def add_to(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command to a parser's commands; `shared` has the options of every command."""
    text = "let a version prove itself on live traffic before it is live"
    trial = commands.add_parser("trial", help=text, description=text, parents=[shared], allow_abbrev=False)
    trial.set_defaults(run=_trial, fail=trial.error)
    trial.add_argument("model", metavar="MODEL")
    text = "a version: open its trial; advance, pause, resume, abort: change the open trial [show it]"
    trial.add_argument("what", metavar="VERSION|VERB", nargs="?", type=_version_or_verb, help=text)
    trial.add_argument("--follow", action="store_true", help="print the trial's events until it ends")
    trial.add_argument("--reason", metavar="TEXT", help="with a verb: why, for the history")
    opening = trial.add_argument_group("with a version")
    text = f'such as "{stages.EXAMPLE}" [{stages.DEFAULT}]'
    opening.add_argument("--stages", metavar="TEXT", help=text.replace("%", "%%"))
    text = "header whose value is the key of a request, as X-User: one version answers all requests of a key"
    opening.add_argument("--key-header", metavar="NAME", help=text)
    text = "how often chance alone may roll back a candidate as good as live, by its errors [0.01]"
    opening.add_argument("--alpha", type=float, help=text)
    text = "share of a shadow's samples that both versions must answer alike, 0 to 1"
    opening.add_argument("--agreement", type=float, metavar="SHARE", help=text)
    text = "milliseconds within which the candidate must answer 95%% of a canary's requests"
    opening.add_argument("--p95-ms", type=float, metavar="MS", help=text)
    text = "roll back if live is right more often on differing samples with a truth; ALPHA as --alpha"
    opening.add_argument("--accuracy", type=float, metavar="ALPHA", help=text)
    text = "what follows if a condition is undecided at the end of a stage [pause]"
    opening.add_argument("--when-undecided", choices=("pause", "roll_back"), help=text)
    opening.add_argument("--max", metavar="DURATION", help="how long the trial lasts at most, as 2d")


def _version_or_verb(word: str) -> int | str:
    if word in _MOVES:
        return word
    if not (word.isascii() and word.isdecimal()):
        raise argparse.ArgumentTypeError(f"{word!r} is neither a version nor one of {', '.join(_MOVES)}")
    return int(word)


def _trial(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    if not isinstance(options.what, int) and (given := _given(options)):
        options.fail(f"{given} opens a trial: name a version after the model")
    if options.reason is not None and options.what not in _MOVES:
        options.fail(f"--reason is for one of {', '.join(_MOVES)}")
    if isinstance(options.what, int):
        found = _opened(client, options)
    elif options.what is None:
        found = client.trial(options.model)
    else:
        found = _MOVES[options.what](client)(options.model, options.reason or "")
    if options.follow:
        return _follow(client, found["id"], options)
    return tables.show(options, found, trial_tables.trial)


def _given(options: argparse.Namespace) -> str | None:
    """Return the first option that only opening a trial takes."""
    names = [name for name in _OF_OPENING if getattr(options, name) is not None]
    return f"--{names[0].replace('_', '-')}" if names else None


def _opened(client: Client, options: argparse.Namespace) -> Trial:
    return client.open_trial(
        options.model,
        options.what,
        options.stages,
        key_header=options.key_header,
        conditions=_conditions(options),
        when_undecided=options.when_undecided or "pause",
        max_duration=options.max,
    )


def _conditions(options: argparse.Namespace) -> Conditions | None:
    asked: Conditions = {}
    if options.alpha is not None:
        asked["errors"] = {"alpha": options.alpha}
    if options.agreement is not None:
        asked["agreement"] = {"at_least": options.agreement}
    if options.p95_ms is not None:
        asked["latency"] = {"p95_at_most": options.p95_ms}
    if options.accuracy is not None:
        asked["accuracy"] = {"alpha": options.accuracy}
    return asked or None


def _follow(client: Client, trial: str, options: argparse.Namespace) -> int:
    """Print the events of a trial. Returns 1 if its candidate was not promoted."""
    state = ""
    for event in client.trial_events(trial):
        state = event.data.get("state", state)
        if options.json:
            tables.say(json.dumps({"id": event.id, "event": event.kind, **event.data}))
        else:
            tables.event(event)
    return 0 if state == "promoted" else 1
