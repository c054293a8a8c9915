"""Command `retrain`, and the options of `submit` that choose feedback."""

import argparse
from collections.abc import Sequence
from typing import Any

from service.client import answers, tables
from service.client.clients import Client
from service.client.retrain_calls import Retrain

TEXT = "when a model is retrained on its feedback; with --corrections, --every, --on-drift or --off, set it"


def add_options(retrain: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    retrain.add_argument("--corrections", type=int, metavar="N", help="after this number of new corrections")
    retrain.add_argument("--every", metavar="DURATION", help="after that time, if there are new truths: P7D")
    retrain.add_argument("--on-drift", action="store_true", help="when the live version drifts; that never promotes")
    retrain.add_argument("--at-most-every", metavar="DURATION", help="least time between two jobs [PT6H]")
    retrain.add_argument("--weight", type=int, help="how often training repeats the corrected samples [1]")
    retrain.add_argument("--dataset", metavar="NAME", help="dataset that grows [the name of the model]")
    policies = answers.Policy.__args__  # type: ignore[attr-defined]
    retrain.add_argument("--promote", choices=policies, help="[trial]")
    retrain.add_argument("--off", action="store_true", help="do not retrain it")


def run(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    """Run the command."""
    names = ("corrections", "every", "at_most_every", "weight", "dataset", "promote")
    given: dict[str, Any] = {name: value for name in names if (value := getattr(options, name)) is not None}
    triggers = options.on_drift or "corrections" in given or "every" in given
    if options.off and (given or triggers):
        options.fail("--off goes with no other option")
    if given and not triggers:
        options.fail("settings are replaced as a whole: give --corrections, --every or --on-drift, too")
    if options.off:
        found = client.set_retrain(options.model)
    elif triggers:
        found = client.set_retrain(options.model, **{"dataset": options.model, **given}, on_drift=options.on_drift)
    else:
        found = client.retrain(options.model)
    return tables.show(options, found, show)


def show(found: Retrain) -> None:
    """Print the settings, and the feedback since the last job."""
    when = [f"after {found['corrections']} corrections"] if found["corrections"] else []
    when += [f"every {found['every']}"] if found["every"] else []
    when += ["on drift"] if found["on_drift"] else []
    if when:
        how = f"at most every {found['at_most_every']}, on {found['dataset']}, promote {found['promote']}"
        tables.say(f"{found['model']} is retrained {' and '.join(when)}; {how}")
    else:
        tables.say(f"{found['model']} is not retrained")
    tables.say(f"{found['new_corrections']} new corrections, {found['new_feedback']} new truths in all")
    if found["job"]:
        tables.say(f"last: job {found['job']}, {found['reason']}")
    if found["fault"]:
        tables.say(f"not queued: {found['fault']}")


def add_feedback_options(train: argparse.ArgumentParser) -> None:
    """Add the options that choose feedback to those of a training job."""
    text = "also learn from truths told since then: P7D, or 2026-11-23T19:00:00Z; a new version of --dataset is made"
    train.add_argument("--feedback-since", metavar="WHEN", help=text)
    text = "also learn from all truths, and repeat corrected samples so often in training, 1 to 100"
    train.add_argument("--feedback-weight", metavar="N", type=int, help=text)


def feedback_of(options: argparse.Namespace) -> dict[str, Any] | None:
    """Return the feedback that the options choose; None for none."""
    chosen = {"since": options.feedback_since, "weight": options.feedback_weight}
    return {name: value for name, value in chosen.items() if value is not None} or None
