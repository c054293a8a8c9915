"""Contract checks of specs, and the first half of `torchloop check`. The second is `training.check`."""

import inspect
import sys
from collections.abc import Sequence
from pathlib import Path

import jsonschema
import orjson

from models.answers import (
    example_of,
    require_declared,
    require_described,
    require_independent,
    require_same,
    require_served,
    values,
)
from models.artifacts import Artifacts
from models.catalog import discovered
from models.checkpoints import state_dict
from models.coding import Coder
from models.contract import Command, checks, require
from models.drift.features import features_of
from models.eager import built
from models.entries import from_array, from_json, inputs_in
from models.samples import Columns, all_finite, joined
from models.signature import Picture
from models.spec import ModelSpec
from service.api.openinference import signature
from service.api.openinference.codec import parse
from service.api.openinference.example import requests
from service.api.openinference.rows import rows
from service.api.signatures import body_schema, example_body

_COPIES = 5
_FLOAT32 = 1e-6  # of the largest number
_NONE: Artifacts = {}
_ACTIVATIONS = ("relu", "sigmoid", "tanh", "softplus")


def the_example_is_a_valid_body_that_decodes_to_itself(_: str, spec: ModelSpec, __: Path) -> None:
    """`example` fits `entry` or `inputs`, in values and dtype."""
    jsonschema.validate(example_body(spec), body_schema(spec))
    body = orjson.dumps(example_body(spec))
    otherwise = "the example changes when it is sent as JSON"
    if any(isinstance(kind, Picture) for kind in spec.inputs.values()):
        otherwise = f"{otherwise}: give its pictures as PIL images, or as the bytes of files"
    if spec.inputs:
        coder = Coder(spec, _NONE)
        require_same(Columns.of([coder(sample) for sample in inputs_in(body)]), example_of(spec), otherwise)
        return
    decoded = from_json(body, spec.tensor)
    require(not decoded.errors, f"the example is refused: {next(iter(decoded.errors.values()), None)}")
    require_same(decoded.good, spec.example, otherwise)


def predictions_have_the_declared_form(_: str, spec: ModelSpec, __: Path) -> None:
    """`postprocess` returns float32 (N, k), or the arrays of `outputs`, and `describe` N of `prediction`."""
    samples = example_of(spec)
    found = values(spec, built(spec, {}).eval(), samples)
    require_declared(spec, found, len(samples))
    require_described(spec, found, len(samples))


def a_sample_has_the_same_answer_alone_and_in_company(_: str, spec: ModelSpec, __: Path) -> None:
    """No answer depends on the other samples of its batch."""
    require_independent(spec, built(spec, {}).eval(), joined([example_of(spec)] * _COPIES))


def random_samples_have_finite_answers_that_are_the_same_alone_and_in_company(
    _: str, spec: ModelSpec, __: Path
) -> None:
    """Whatever the bounds allow is answered; padding, if any, changes nothing."""
    require_served(spec, built(spec, {}).eval())


def the_state_dict_determines_the_answer(name: str, spec: ModelSpec, folder: Path) -> None:
    """A network that is loaded from the file of another answers the same."""
    network, path = built(spec, {}).eval(), folder / f"{name}.pt"
    state_dict.save_weights(network.state_dict(), path)
    again, _ = state_dict.load(name, spec, path)
    samples = example_of(spec)
    require_same(
        values(spec, network, samples),
        values(spec, again, samples),
        "a reloaded network gives another answer: register all that it depends on as parameters or buffers",
    )


def the_open_inference_protocol_carries_the_example_in_json_and_in_binary(_: str, spec: ModelSpec, __: Path) -> None:
    """/v2 decodes the example to itself: text and categories as BYTES, absent values, pictures, different lengths."""
    wanted, coder = example_of(spec), Coder(spec, _NONE) if spec.inputs else None
    outputs = [output.name for output in signature.outputs(spec)]
    for positions, body, header in requests(spec):
        tensors = parse(body, header, signature.accepted(spec), outputs).inputs
        form = "in JSON" if header is None else "in binary"
        otherwise = f"the example changes when it is sent to /v2 {form}"
        if coder is None:
            entries = from_array(tensors[signature.INPUT].data, spec.tensor)
            require(not entries.errors, otherwise)
            require_same(entries.good, spec.example, otherwise)
        else:
            found = Columns.of([coder(sample) for sample in rows(tensors, spec.inputs)])
            assert isinstance(wanted, Columns)
            # Numbers travel as float32, from which `encode` may compute.
            require_same(found, wanted.take(positions), otherwise, tolerance=_FLOAT32)


def every_activation_builds_a_network(_: str, spec: ModelSpec, __: Path) -> None:
    """A network with the argument `activation` takes each of them."""
    if "activation" in inspect.signature(spec.network).parameters:
        for activation in _ACTIVATIONS:
            answers = values(spec, spec.network(activation=activation).eval(), example_of(spec))
            require(all_finite(answers), f"with activation={activation} the answers are not finite")


def each_sample_has_one_number_for_each_feature(_: str, spec: ModelSpec, __: Path) -> None:
    """`features`, or the standard ones, return numbers (N,) by name, of which drift is measured."""
    samples = example_of(spec)
    for name, numbers in features_of(spec)(samples).items():
        fits = getattr(numbers, "shape", None) == (len(samples),) and numbers.dtype.kind in "fiub"
        require(fits, f"the feature {name} is not one number for each of {len(samples)} samples, ({len(samples)},)")


CHECKS = checks(
    the_example_is_a_valid_body_that_decodes_to_itself,
    predictions_have_the_declared_form,
    a_sample_has_the_same_answer_alone_and_in_company,
    random_samples_have_finite_answers_that_are_the_same_alone_and_in_company,
    the_state_dict_determines_the_answer,
    the_open_inference_protocol_carries_the_example_in_json_and_in_binary,
    every_activation_builds_a_network,
    each_sample_has_one_number_for_each_feature,
)


def main(words: Sequence[str] | None = None, *, prog: str = "python -m service.check") -> int:
    """Check the specs. Returns the exit status, see Command."""
    return Command("models", discovered, CHECKS, required=True).main(words, prog)


if __name__ == "__main__":
    sys.exit(main())
