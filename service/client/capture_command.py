"""Commands `feedback`, `truths`, `capture`, `captures`, `original`, `erase`, `accuracy` and `replay`."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from service.client import capture_answers as answers
from service.client import tables
from service.client.clients import Client
from service.client.errors import Forbidden, NotFound
from service.client.subcommands import added


def add_to(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add the commands to a parser's; `shared` has the options of every command."""

    command = partial(added, commands, shared)
    feedback = command(_feedback, "feedback id", "tell the truth about an answer, by its id")
    feedback.add_argument("--truth", required=True, help="label or value; JSON, or else a text: 7, cat, '{\"a\": 1}'")
    feedback.add_argument("--model", help="model that answered [as captured]")
    feedback.add_argument("--index", type=int, default=0, help="position of the sample in its body [0]")
    kinds = answers.Kind.__args__  # type: ignore[attr-defined]
    feedback.add_argument("--kind", choices=kinds, default="correction", help="[correction]")
    feedback.add_argument("--by", help="who says so [the scope of the key]")
    _add_capture_options(command(_capture, "capture model", "which answers are captured; with --rate, set it"))
    command(_truths, "truths model", "what a truth of a model is: its outputs, and their labels")
    listed = command(_captures, "captures model", "captured samples; --unlabelled --order random: those to audit")
    listed.add_argument("--unlabelled", action="store_true", help="only samples without an audit and an outcome")
    orders = answers.Order.__args__  # type: ignore[attr-defined]
    listed.add_argument("--order", choices=orders, default="newest", help="[newest]")
    listed.add_argument("--version", type=int, help="answered by that version")
    listed.add_argument("--limit", type=int, default=20, help="number of samples [20]")
    listed.add_argument("--cursor", help="the cursor of the page before, of --json")
    original = command(_original, "original id file", "save the picture file of a captured sample, as it came")
    original.add_argument("--as-read", action="store_true", help="as the model's reader has made it, as PNG")
    original.add_argument("--index", type=int, default=0, help="position of the sample in its body [0]")
    original.add_argument("--input", help="with --as-read: that of this input, of several pictures [the first one]")
    original.add_argument("--model", help="model that answered [as captured]")
    erase = command(_erase, "erase model", "erase captured samples for good")
    which = erase.add_mutually_exclusive_group(required=True)
    which.add_argument("--prediction", metavar="ID", help="those of one prediction")
    which.add_argument("--prediction-key", metavar="KEY", help="those with one X-Prediction-Key")
    which.add_argument("--before", metavar="TIME", help="those of requests that began before, as 2026-11-23T19:00:00Z")
    accuracy = command(_accuracy, "accuracy model version", "how right a version was, by audits and outcomes")
    accuracy.add_argument("--window", default="1d", help="the last minutes, hours or days, as 30m, 12h or 7d [1d]")
    command(_replay, "replay id", "compute a captured prediction again by its version, and compare")


def _add_capture_options(capture: argparse.ArgumentParser) -> None:
    capture.add_argument("--rate", type=float, help="share of the requests that is captured, 0 to 1")
    capture.add_argument("--max-examples", type=int, metavar="N", help="captured samples that are kept")
    capture.add_argument("--max-bytes", type=int, metavar="BYTES", help="their size in all")
    capture.add_argument("--days", type=float, help="after which a captured sample goes")
    capture.add_argument("--originals", action="store_true", help="also keep picture files as they came")


def _feedback(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    told = {"index": options.index, "kind": options.kind, "by": options.by}
    try:
        (result,) = client.feedback(options.id, _truth(options.truth), model=options.model, **told)
    except (NotFound, Forbidden) as err:
        if options.model is None:
            err.args = (f"{err}. Name the model with --model to tell it all the same",)
        raise
    tables.show(options, result, _show_result)
    return 0 if result["accepted"] else 1


def _truth(word: str) -> Any:
    """Return the value that a word of the command line stands for: JSON, or else a text."""
    try:
        return json.loads(word)
    except ValueError:
        return word


def _show_result(result: answers.FeedbackResult) -> None:
    error = result["error"]
    if error is not None:
        sys.stderr.write(f"torchloop: {error['title']}: {error['detail']}\n")
    else:
        tables.say(f"accepted, matched: {result['matched']}")


def _truths(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    return tables.show(options, client.truth_form(options.model), _show_truths)


def _show_truths(form: answers.TruthForm) -> None:
    if not form["outputs"]:
        tables.say(f"the answers of {form['model']} have nothing that a truth could be compared with")
        return
    rows = [(part["name"] or "(the only one)", part["kind"], _domain(part)) for part in form["outputs"]]
    tables.table(("output", "kind", "truths"), rows)


def _domain(part: answers.TruthPart) -> str:
    """The truths that an output may have: its labels, a number, or an array of a shape."""
    if part["kind"] == "array":
        return f"numbers ({', '.join('any' if size is None else str(size) for size in part['shape'])})"
    if part["kind"] == "value":
        return "a number"
    return ", ".join(map(str, part["labels"])) if part["labels"] else "a text or a whole number"


def _original(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    which: dict[str, Any] = {"index": options.index, "model": options.model}
    if options.as_read:
        content = client.captured_picture(options.id, input_name=options.input, **which)
    elif options.input is not None:
        options.fail("--input goes with --as-read")
    else:
        content = client.captured_original(options.id, **which)
    path = Path(options.file).expanduser()
    path.write_bytes(content)
    return tables.show(options, {"path": str(path)}, lambda written: tables.say(written["path"]))


def _capture(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    given = {name: getattr(options, name) for name in ("max_examples", "max_bytes", "days")}
    if options.rate is not None:
        found = client.set_capture(options.model, options.rate, originals=options.originals, **given)
    elif options.originals or any(value is not None for value in given.values()):
        options.fail("settings are replaced as a whole: give --rate, too")
    else:
        found = client.capture(options.model)
    return tables.show(options, found, _show_settings)


def _show_settings(found: answers.CaptureSettings) -> None:
    most = f"{found['max_examples']} samples, {found['max_bytes']} bytes, {found['days']:g} days"
    originals = ", picture files as they came" if found["originals"] else ""
    tables.say(f"{found['model']}: {found['rate']:g} of the requests{originals}; kept are at most {most}")
    tables.say(f"now {found['examples']} samples, {found['bytes']} bytes")


def _captures(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    asked = {name: getattr(options, name) for name in ("unlabelled", "order", "version", "limit", "cursor")}
    return tables.show(options, client.captures(options.model, **asked), _show_captures)


def _show_captures(page: answers.CapturePage) -> None:
    rows = [
        (
            one["id"],
            one["index"],
            one["at"][:19].replace("T", " "),
            one["key"],
            _said(one["said"]),
            _told(one["feedback"]),
        )
        for one in page["captures"]
    ]
    tables.table(("id", "index", "at", "key", "answer", "truth"), rows)


def _said(said: Mapping[str, Mapping[str, Any]] | None) -> str:
    """`7 (0.99)`, `species cat (0.7), weight 3.5`."""
    return ", ".join(f"{name} {_part(part)}".strip() for name, part in (said or {}).items())


def _part(part: Mapping[str, Any]) -> str:
    if "label" not in part:
        return f"{part['value']:.4g}"
    return f"{part['label']} ({part['probability']:.2g})" if "probability" in part else str(part["label"])


def _told(entries: Sequence[answers.Told]) -> str:
    """The current truths, each with its kind."""
    return ", ".join(f"{json.dumps(one['truth'])} ({one['kind']})" for one in entries if one["replaced_at"] is None)


def _erase(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    which = {"prediction": options.prediction, "key": options.prediction_key, "before": options.before}
    return tables.show(options, client.erase_captures(options.model, **which), _show_erased)


def _show_erased(done: answers.Erased) -> None:
    tables.say(f"{done['erased']} samples erased")
    if done["in_datasets"]:
        tables.say(f"in datasets, which are not changed: {', '.join(done['in_datasets'])}")
    if done["trained"]:
        tables.say(f"versions trained on these: {', '.join(map(str, done['trained']))}")


def _accuracy(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    found = client.accuracy(options.model, options.version, window=options.window)
    return tables.show(options, found, _show_accuracy)


def _show_accuracy(found: answers.Accuracy) -> None:
    for name in ("accuracy", "error"):
        estimate: answers.Estimate | None = found["accuracy"] if name == "accuracy" else found["error"]
        if estimate is not None:
            word = "accuracy" if name == "accuracy" else "mean absolute error"
            tables.say(f"{word} {estimate['value']:.4g}, 95% interval {estimate['low']:.4g} to {estimate['high']:.4g}")
    tables.say(f"{found['labelled']} of {found['captured']} captured answers are labelled by audits and outcomes")
    if expected := found["expected"]:
        word = "expected" if expected["valid"] else "expected, but not valid"
        tables.say(f"{word} by the answers' own confidence: {expected['accuracy']:.4g} ({expected['reason']})")
    if found["corrections"]["count"]:
        tables.say(f"{found['corrections']['count']} corrections, which are no measure of accuracy")


def _replay(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    found = client.replay(options.id)
    tables.show(options, found, _show_replay)
    return 0 if _agrees(found) else 1


def _agrees(found: answers.Replay) -> bool:
    """Whether all labels are the same; of a model without labels, whether the numbers are the same to the bit."""
    labels = [sample["same_label"] for sample in found["samples"] if sample["same_label"] is not None]
    return all(labels) if labels else found["same"]


def _show_replay(found: answers.Replay) -> None:
    forms = found.get("form", {})  # an older service does not say it
    then, now = (" ".join(filter(None, [found["backend"][when], forms.get(when)])) for when in ("then", "now"))
    backend = f"{then}, now {now}"
    code = "" if found["same_code"] else "; the model's code has changed"
    if found["same"]:
        said = "the same to the bit"
    elif found["greatest_difference"] is None:
        said = "numbers of another shape"
    else:
        said = f"differs by at most {found['greatest_difference']:.3g}"
    tables.say(f"version {found['version']} of {found['model']}: {said} ({backend}{code})")
